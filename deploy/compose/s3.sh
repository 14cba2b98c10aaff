#!/bin/sh
# The S3 server of docker-compose.yml: `s3.sh serve` runs it, `s3.sh health` lists its buckets as any client would.
set -eu
access=$(cat /run/secrets/access_key_id)
secret=$(cat /run/secrets/secret_access_key)
case $1 in
serve)
  # Quoted as CSV is. An argument would show in the list of processes.
  export RCLONE_AUTH_KEY="\"$access,$secret\""
  exec rclone serve s3 --config "" --cache-dir /tmp --addr :9000 --no-cleanup /objects
  ;;
health)
  export RCLONE_S3_ACCESS_KEY_ID="$access" RCLONE_S3_SECRET_ACCESS_KEY="$secret"
  export RCLONE_S3_PROVIDER=Rclone RCLONE_S3_ENDPOINT=http://127.0.0.1:9000
  exec rclone lsd --config "" --cache-dir /tmp --retries 1 --low-level-retries 1 --timeout 5s :s3:
  ;;
esac
