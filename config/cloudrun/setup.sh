#!/bin/sh
# What TaskHub needs on Google Cloud, made where it is missing: a service account, a repository for images, Cloud SQL for
# PostgreSQL, Memorystore for Redis, and secrets with the addresses of both and an API key. A second run changes nothing.
#
#   PROJECT=my-project REGION=europe-west1 config/cloudrun/setup.sh [--dry-run]
#
# DATABASE_TIER (db-custom-1-3840) is the machine of the database. Passwords are made here, kept in Secret Manager, and
# never printed.
set -eu
. "$(dirname "$0")/common.sh"

random() { head -c 32 /dev/urandom | od -A n -t x1 | tr -d ' \n'; }

# A secret whose value is what the command that follows its name prints.
secret() {
    name=$1
    shift
    if ! there gcloud secrets describe "$name"; then
        show gcloud secrets create "$name" --replication-policy=automatic --data-file=-
        if ! $DRY_RUN; then
            # Not through a pipe: a command that failed must not leave half a secret.
            value=$("$@")
            printf %s "$value" | gcloud secrets create "$name" --replication-policy=automatic --data-file=-
        fi
    fi
    run gcloud secrets add-iam-policy-binding "$name" "--member=serviceAccount:$ACCOUNT" \
        --role=roles/secretmanager.secretAccessor --format=none
}

# The password is set and kept in one go, so that the secret is right whenever it is there.
database_url() {
    password=$(random)
    if gcloud sql users describe taskhub "--instance=$SERVICE" >/dev/null 2>&1; then
        gcloud sql users set-password taskhub "--instance=$SERVICE" "--password=$password" >&2
    else
        gcloud sql users create taskhub "--instance=$SERVICE" "--password=$password" >&2
    fi
    echo "postgresql://taskhub:$password@/taskhub?host=/cloudsql/$PROJECT:$REGION:$SERVICE"
}

redis_url() {
    password=$(gcloud redis instances get-auth-string "$SERVICE" "--region=$REGION" "--format=value(authString)")
    address=$(gcloud redis instances describe "$SERVICE" "--region=$REGION" "--format=value(host)")
    echo "redis://:$password@$address:6379/0"
}

run gcloud services enable run.googleapis.com sqladmin.googleapis.com redis.googleapis.com \
    secretmanager.googleapis.com compute.googleapis.com artifactregistry.googleapis.com cloudbuild.googleapis.com \
    monitoring.googleapis.com

there gcloud iam service-accounts describe "$ACCOUNT" ||
    run gcloud iam service-accounts create "$SERVICE" --display-name=TaskHub
for role in roles/cloudsql.client roles/monitoring.metricWriter; do
    run gcloud projects add-iam-policy-binding "$PROJECT" "--member=serviceAccount:$ACCOUNT" "--role=$role" \
        --condition=None --format=none
done

there gcloud artifacts repositories describe "$SERVICE" "--location=$REGION" ||
    run gcloud artifacts repositories create "$SERVICE" "--location=$REGION" --repository-format=docker

# Each instance of TaskHub holds up to ten connections, and revisions overlap while one replaces the other.
there gcloud sql instances describe "$SERVICE" ||
    run gcloud sql instances create "$SERVICE" "--region=$REGION" --database-version=POSTGRES_17 --edition=enterprise \
        "--tier=${DATABASE_TIER:-db-custom-1-3840}" --database-flags=max_connections=250 --storage-auto-increase \
        --backup-start-time=18:00 --enable-point-in-time-recovery --deletion-protection
there gcloud sql databases describe taskhub "--instance=$SERVICE" ||
    run gcloud sql databases create taskhub "--instance=$SERVICE"

# A doorbell between instances: it keeps nothing, and without it everything still arrives, at most a second later.
there gcloud redis instances describe "$SERVICE" "--region=$REGION" ||
    run gcloud redis instances create "$SERVICE" "--region=$REGION" --tier=basic --size=1 --redis-version=redis_7_2 \
        --enable-auth "--network=projects/$PROJECT/global/networks/$NETWORK"

secret "$SERVICE-api-key" random
secret "$SERVICE-database-url" database_url
secret "$SERVICE-redis-url" redis_url

echo "Next: config/cloudrun/deploy.sh. The key of the first operator:" >&2
echo "  gcloud secrets versions access latest --secret=$SERVICE-api-key --project=$PROJECT" >&2
