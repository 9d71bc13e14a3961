# shellcheck shell=sh disable=SC2034  # what is set here is used by the scripts that read this
# What the scripts of this directory share: what they are told, and commands that --dry-run only prints.
#
# From the environment: PROJECT (else gcloud's own), REGION, and SERVICE, NETWORK, SUBNET where the defaults do not fit.

DRY_RUN=false
for argument in "$@"; do
    case $argument in
        --dry-run) DRY_RUN=true ;;
        *)
            echo "usage: [PROJECT=…] REGION=… $0 [--dry-run]" >&2
            exit 2
            ;;
    esac
done

HERE=$(cd "$(dirname "$0")" && pwd)
PROJECT=${PROJECT:-$(gcloud config get-value project 2>/dev/null || true)}
: "${PROJECT:?set PROJECT to the id of your Google Cloud project}"
: "${REGION:?set REGION to where it is to run, such as europe-west1}"
SERVICE=${SERVICE:-taskhub}
NETWORK=${NETWORK:-default}
SUBNET=${SUBNET:-$NETWORK}
ACCOUNT=$SERVICE@$PROJECT.iam.gserviceaccount.com
REPOSITORY=$REGION-docker.pkg.dev/$PROJECT/$SERVICE
export CLOUDSDK_CORE_PROJECT="$PROJECT" CLOUDSDK_CORE_DISABLE_PROMPTS=1

# A command as a shell reads it.
show() {
    line=
    for word in "$@"; do
        case $word in
            *[!A-Za-z0-9_./:=,@+%-]*) word="'$(printf %s "$word" | sed "s/'/'\\\\''/g")'" ;;
        esac
        line="$line${line:+ }$word"
    done
    echo "$line"
}

# Say what is done, and do it.
run() {
    show "$@"
    $DRY_RUN || "$@"
}

# Whether something is there already. A dry run supposes that nothing is, and so prints everything.
there() {
    ! $DRY_RUN && "$@" >/dev/null 2>&1
}

# What a command answers; in a dry run, the name of it.
ask() {
    placeholder=$1
    shift
    if $DRY_RUN; then echo "$placeholder"; else "$@"; fi
}
