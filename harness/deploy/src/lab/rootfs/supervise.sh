# Runs a command so that it dies with the process that asked for it, however that process ends.
#
# Usage: sh supervise.sh SCRATCH PARTIAL COMMAND...   in a process group of its own
# Standard input is the life-line: a pipe that nobody writes to. Its end means that the caller
# dropped the work, panicked or was killed; then the whole group is told to stop.
# SCRATCH is removed in any case, PARTIAL (what COMMAND writes) when COMMAND failed.
scratch=$1 partial=$2
shift 2

# Caught, not ignored: an ignored signal would stay ignored in COMMAND.
trap : TERM

# mmdebstrap, as root, mounts /dev, /proc and /sys into its tree. In a mount namespace of its own
# they are gone with its last process, and no clean-up can reach through them to this machine.
if [ "$(id -u)" = 0 ] && unshare --mount true 2>/dev/null; then
    set -- unshare --mount "$@"
fi

exec 3<&0 </dev/null
"$@" 3<&- &
command=$!

# The watcher keeps no output open: the caller reads standard error to its end.
(
    trap '' TERM
    while read -r _; do :; done <&3
    kill -TERM 0
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do sleep 1; done
    kill -KILL 0
) >/dev/null 2>&1 &
watcher=$!
# The caller may have stopped reading: a shell that says "Terminated" into a closed pipe dies of it.
exec 3<&- 2>/dev/null

# A caught signal ends `wait` early; the command's own status is what counts.
wait "$command"
status=$?
while kill -0 "$command"; do
    wait "$command"
    status=$?
done

kill -KILL "$watcher"
rm -rf --one-file-system "$scratch"
[ "$status" -eq 0 ] || rm -f "$partial"
exit "$status"
