#!/bin/sh
# The alert policies of alerts/ and the dashboard, made or brought up to date. They read the metrics of TaskHub's own, so
# deploy.sh needs METRICS_IMAGE.
#
#   PROJECT=my-project REGION=europe-west1 EMAIL=operators@example.org config/cloudrun/monitoring.sh [--dry-run]
#
# EMAIL: who is told; without it, alerts only show in the console.
set -eu
. "$(dirname "$0")/common.sh"

channel=
if [ -n "${EMAIL:-}" ]; then
    find_channel() {
        gcloud beta monitoring channels list "--filter=type=\"email\" AND labels.email_address=\"$EMAIL\"" \
            "--format=value(name)" --limit=1
    }
    channel=$(ask '' find_channel)
    if [ -z "$channel" ]; then
        run gcloud beta monitoring channels create --display-name=TaskHub --type=email \
            "--channel-labels=email_address=$EMAIL"
        channel=$(ask CHANNEL find_channel)
    fi
fi

for file in "$HERE"/alerts/*.json; do
    name=$(sed -n 's/^  "displayName": "\(.*\)",$/\1/p' "$file")
    policy=$(ask '' gcloud alpha monitoring policies list "--filter=displayName=\"$name\"" "--format=value(name)" --limit=1)
    if [ -n "$policy" ]; then
        run gcloud alpha monitoring policies update "$policy" "--policy-from-file=$file" \
            ${channel:+"--set-notification-channels=$channel"}
    else
        run gcloud alpha monitoring policies create "--policy-from-file=$file" \
            ${channel:+"--notification-channels=$channel"}
    fi
done

dashboard=$(ask '' gcloud monitoring dashboards list "--filter=displayName=TaskHub" "--format=value(name)" --limit=1)
if [ -n "$dashboard" ]; then
    # An update must name the version that it replaces.
    etag=$(gcloud monitoring dashboards describe "$dashboard" "--format=value(etag)")
    changed=$(mktemp)
    trap 'rm -f "$changed"' EXIT
    sed "s|^{\$|{\"etag\": \"$etag\",|" "$HERE/dashboard.json" >"$changed"
    run gcloud monitoring dashboards update "$dashboard" "--config-from-file=$changed"
else
    run gcloud monitoring dashboards create "--config-from-file=$HERE/dashboard.json"
fi
