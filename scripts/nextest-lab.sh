#!/bin/sh
# nextest's set-up script before the first test that needs an engine (.config/nextest.toml).
# Builds the command, lets it make the lab's images where they are missing, and tells the tests:
#   LOCKPROOF_BIN    where the command is
#   LOCKPROOF_PACE   how many times slower than a fast machine this one starts the lab, at least 1:
#                    what the tests wait for at most is multiplied by it
set -eu

# What a start of the lab takes on a fast machine, in seconds.
FAST=0.5

# The same selection as nextest's: with another one, cargo would build some dependencies anew,
# for their other features.
cargo build --locked --quiet --workspace --bins --tests
target=${CARGO_TARGET_DIR:-target}
case $target in
    /*) ;;
    *) target=$PWD/$target ;;
esac
said=$("$target/debug/lockproof" doctor --lab)
echo "$said"
start=$(echo "$said" | sed -n 's/.*a start of the lab takes \([0-9.]*\) s.*/\1/p')
pace=$(awk -v start="$start" -v fast="$FAST" 'BEGIN { pace = start / fast; print (pace < 1 ? 1 : pace) }')
{
    echo "LOCKPROOF_BIN=$target/debug/lockproof"
    echo "LOCKPROOF_PACE=$pace"
} >>"${NEXTEST_ENV:-/dev/stdout}"
