#!/bin/sh
# nextest's set-up script before the first test that needs an engine (.config/nextest.toml).
# Builds the command, lets it make the lab's images where they are missing, and tells the tests
# where it is: LOCKPROOF_BIN.
set -eu

# The same selection as nextest's: with another one, cargo would build some dependencies anew,
# for their other features.
cargo build --locked --quiet --workspace --bins --tests
target=${CARGO_TARGET_DIR:-target}
case $target in
    /*) ;;
    *) target=$PWD/$target ;;
esac
"$target/debug/lockproof" doctor --lab
echo "LOCKPROOF_BIN=$target/debug/lockproof" >>"${NEXTEST_ENV:-/dev/stdout}"
