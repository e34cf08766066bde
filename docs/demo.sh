#!/bin/sh
# What a container's command does to its init: orphans, zombies, signals, a daemon that is left behind.
# Run it in a container of its own:  cargo run --release -- -v --unshare all sh docs/demo.sh

# How many of the processes in here are zombies?
zombies() { cat /proc/[0-9]*/stat 2>/dev/null | sed 's/.*) //' | grep -c '^Z'; }

echo "PID 1 in $(hostname) is $(cat /proc/1/comm); this script is $$"

count=0
while [ $count -lt 200 ]; do
    (sleep 0.01 &) # its parent, the subshell, ends at once: an orphan
    count=$((count + 1))
done
sleep 0.3
echo "200 orphans have died; zombies left: $(zombies)"

trap 'echo "this script caught USR1"' USR1
kill -USR1 1 # to the init, which forwards it
sleep 0.2

# A daemon in a session of its own, which needs half a second to end. A signal to its group would not find it, and
# most inits would not wait for it.
setsid sh -c 'trap "sleep 0.5; echo the daemon has saved its work; exit" TERM; while :; do sleep 0.1; done 2>/dev/null' &
sleep 0.3

echo "this script ends with 3"
exit 3
