#!/bin/sh
# Build this checkout and put it in service, beside the old revision until it is ready. setup.sh comes first, once.
#
#   PROJECT=my-project REGION=europe-west1 config/cloudrun/deploy.sh [--dry-run]
#
# DOMAIN: names under which clients reach it besides its own, with commas. IMAGE: an image that is built already.
# INVOKER (allUsers): who reaches TaskHub at all; it asks for credentials itself.
# METRICS_IMAGE: the image of Google's Prometheus sidecar for Cloud Run; without it there are no metrics of TaskHub's own.
set -eu
. "$(dirname "$0")/common.sh"

if [ -z "${IMAGE:-}" ]; then
    IMAGE=$REPOSITORY/taskhub:$(git -C "$HERE" rev-parse --short=12 HEAD)
    run gcloud builds submit "--tag=$IMAGE" "$HERE/../.."
fi

number=$(ask PROJECT_NUMBER gcloud projects describe "$PROJECT" "--format=value(projectNumber)")
address=$SERVICE-$number.$REGION.run.app

manifest=$(mktemp)
trap 'rm -f "$manifest"' EXIT
sed -e "s|\${PROJECT}|$PROJECT|g" -e "s|\${REGION}|$REGION|g" -e "s|\${SERVICE}|$SERVICE|g" \
    -e "s|\${ACCOUNT}|$ACCOUNT|g" -e "s|\${NETWORK}|$NETWORK|g" -e "s|\${SUBNET}|$SUBNET|g" \
    -e "s|\${IMAGE}|$IMAGE|g" -e "s|\${ALLOWED_HOSTS}|$address${DOMAIN:+,$DOMAIN}|g" \
    -e "s|\${METRICS_IMAGE}|${METRICS_IMAGE:-}|g" "$HERE/service.yaml" >"$manifest"
if [ -z "${METRICS_IMAGE:-}" ]; then
    sed -i.bak '/# sidecar {/,/# } sidecar/d' "$manifest"
    rm -f "$manifest.bak"
fi

if $DRY_RUN; then
    echo "cat >service.yaml <<'END'"
    cat "$manifest"
    echo END
    show gcloud run services replace service.yaml "--region=$REGION"
else
    run gcloud run services replace "$manifest" "--region=$REGION"
fi
run gcloud run services add-iam-policy-binding "$SERVICE" "--region=$REGION" "--member=${INVOKER:-allUsers}" \
    --role=roles/run.invoker --format=none

echo "TaskHub is at https://$address" >&2
