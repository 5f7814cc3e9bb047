#!/usr/bin/env bash
# The measurements that the documents quote, made anew on this machine's GPU, a log for each.
#
#   bash scripts/evidence.sh FOLDER                      all of them, about half an hour
#   bash scripts/evidence.sh FOLDER kernels training     some: tests kernels sanitizer training
#                                                        pictures symbols lengths efficiency
#                                                        listops
#   bash scripts/evidence.sh FOLDER sequence two         on two GPUs: what they do with a sequence,
#                                                        and with a batch
#
# The tests need `pip install -e '.[dev]'`. The exit status is 1 if a command failed.
set -u
one="tests kernels sanitizer training pictures symbols lengths efficiency listops"
known="$one sequence two"
folder=$(realpath -m "${1:?name a folder for the logs}"); shift
parts=${*:-$one}
for part in $parts; do
  case " $known " in
    *" $part "*) ;;
    *) echo "there is no part '$part'; there are: $known" >&2; exit 2 ;;
  esac
done
cd "$(dirname "$0")/.."
mkdir -p "$folder"
failed=0
data=${CHELA_DATA:-data}
own="data_dir=$data logger=csv task.num_val=1000 task.num_test=1000"
# D = 128 and depth 6, the shape that speeds are quoted at
d128="model.dim=128 model.depth=6 model.ffn_dim=256 model.mixer.qk_dim=64 model.mixer.v_dim=256 \
model.mixer.gate=silu \
model.norm=layer model.prenorm=true model.dropout=0.1"

keep() { # keep NAME COMMAND...: run it, show its end, keep all of it
  local log="$folder/$1.txt"; shift
  { echo "\$ $*"; date -u +%FT%TZ; "$@"; } >>"$log" 2>&1 || { failed=1; echo "FAILED: $*"; }
  echo "== $*"; tail -n 12 "$log"
}

for part in $parts; do
  rm -f "$folder/$part.txt" # a repeat is a log of its own
  case $part in
    tests)
      keep tests python -m pytest --confcutdir=tests/kernels tests/kernels -m gpu -q -n 12
      # without the mark: on a CPU they are interpreted, here they are compiled
      keep tests python -m pytest --confcutdir=tests/kernels -q -n 12 \
        tests/kernels/test_{wavelet_tree,exponentials,token_loss,turn_kernels}.py
      keep tests python -m pytest tests/training -m gpu -q -n 6
      ;;
    kernels)
      keep kernels python -m chela bench-kernels
      keep kernels python -m chela bench-kernels --plot "$folder/kernels.png"
      ;;
    sanitizer)
      for tool in memcheck racecheck; do
        keep sanitizer compute-sanitizer --tool $tool python -m chela bench-kernels \
          --check --implementation triton --shape 2x256x128 --operation attention --operation convolution \
          --operation feed-forward --operation gate --operation norm --operation queries
      done
      ;;
    training)
      bench="python -m chela bench-training model=chela $own $d128"
      keep training $bench task=pathfinder task.num_train=20000 trainer.batch_size=256
      keep training $bench task=listops task.num_train=20000 trainer.batch_size=64 \
        trainer.length_window=1
      keep training $bench task=pathx task.num_train=800 trainer.batch_size=16
      keep training $bench task=pathfinder task.num_train=20000 trainer.batch_size=50 \
        model.dim=160 model.depth=8 model.ffn_dim=320 model.mixer.qk_dim=96 \
        model.mixer.v_dim=320 model.norm=batch
      keep training $bench task=pathfinder task.num_train=20000 trainer.batch_size=50 \
        model.depth=8 model.norm=batch
      # the same rate from train.py itself
      keep training python train.py model=chela $own $d128 task=pathfinder task.num_train=20000 \
        trainer.batch_size=256 trainer.max_steps=400 output_dir="$folder/runs"
      ;;
    pictures) # recipes as they are, where a GPU has nothing else to do; a profile each
      for shape in "image 1024 51200" "pathfinder 1024 65536" "pathfinder 1024 262144" \
        "pathx 16384 262144" "d128 1024 262144"; do
        read -r name lengths tokens <<<"$shape"
        words="task=$name"
        [ "$name" = d128 ] && words="task=pathfinder $d128"
        keep pictures python -m chela bench-training --no-plain --lengths "$lengths" \
          --tokens "$tokens" --profile "$folder/profile-$name-$tokens.txt" model=chela $words
      done
      keep pictures python -m chela bench-kernels --operation "long convolution" \
        --shape 1x65536x128 --shape 1x1048576x128
      ;;
    symbols) # likewise
      for model in chela transformer; do
        keep symbols python -m chela bench-training --no-plain --lengths 4096,16384 \
          --tokens 65536 --profile "$folder/profile-rfc_bytes-$model.txt" task=rfc_bytes \
          model=$model
      done
      for task in "text task.protocol=lra" \
        "listops task.num_train=20000 task.num_val=1000 task.num_test=1000"; do # of many lengths
        keep symbols python -m chela bench-training --no-plain \
          --profile "$folder/profile-${task%% *}.txt" task=$task model=chela data_dir="$data"
      done
      ;;
    lengths)
      keep lengths python -m chela bench-training task=listops model=chela $d128 \
        --lengths 1024,4096,16384,65536,131072 --plot "$folder/lengths.png"
      ;;
    efficiency)
      keep efficiency python -m chela efficiency --lengths 1024,4096,16384 \
        --output "$folder/efficiency"
      ;;
    sequence)
      keep sequence python -m pytest tests/model/test_shares.py \
        tests/training/test_sequence_devices.py -m gpu -q
      keep sequence python -m chela bench-sequence --profile
      keep sequence python -m chela bench-sequence --lengths 262144 --profile model.causal=true
      ;;
    two)
      for shape in "" "$d128"; do
        for tokens in 262144 524288; do
          keep two python -m chela bench-training --no-plain --lengths 1024 --tokens $tokens \
            task=pathfinder model=chela $shape trainer.devices=2
        done
      done
      ;;
    listops)
      keep listops python train.py task=listops model=chela $d128 trainer.max_epochs=3 \
        data_dir="$data" output_dir="$folder/runs" logger=csv
      ;;
  esac
done
exit $failed
