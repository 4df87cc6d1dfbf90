#!/bin/sh
# Starts PostgreSQL with its data in $PGDATA, which is made when it is not there. $POSTGRES_PASSWORD is asked of clients
# that come over the network; through the socket in $PGHOST the pod itself needs none.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    : "${POSTGRES_PASSWORD:?is the password of the user postgres, and has to be set}"
    printf '%s\n' "$POSTGRES_PASSWORD" | initdb --username=postgres --pwfile=/dev/stdin --encoding=UTF8 \
        --auth-local=trust --auth-host=scram-sha-256
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
fi
exec postgres -c listen_addresses='*' -c unix_socket_directories="$PGHOST"
