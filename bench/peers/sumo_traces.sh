#!/bin/sh
# Floating-car traces to train the planner on, from the SUMO traffic simulator: ten minutes of a
# real motorway junction with a seeded demand (about 20 s of one core, 117 MB).
#
# Run: bench/peers/sumo_traces.sh FILE.csv [SEED]
# The simulator comes from the Python registry into bench/peers/.venv, which git ignores. Its road
# network is OpenStreetMap data (ODbL): do not commit what comes out.
# The driving is simulated: no sensor noise, and lane changes are instantaneous.
set -eu
output=${1:?"usage: $0 FILE.csv [SEED]"}
seed=${2:-1}
venv=$(dirname "$0")/.venv
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
if ! "$venv/bin/python" -c 'import sumo' 2>/dev/null; then
    "$venv/bin/pip" install --quiet eclipse-sumo==1.28.0
fi
SUMO_HOME=$("$venv/bin/python" -c 'import sumo; print(sumo.SUMO_HOME)')
export SUMO_HOME
# Written aside first: a file under its own name is whole.
partial=${output%.csv}.partial.csv
"$SUMO_HOME/bin/sumo" -c "$SUMO_HOME/tools/game/A10KW.sumocfg" \
    --begin 0 --end 600 --step-length 0.1 --seed "$seed" \
    --fcd-output "$partial" --fcd-output.attributes x,y,angle,speed,acceleration \
    --device.fcd.begin 120 --no-step-log --no-warnings
mv "$partial" "$output"
