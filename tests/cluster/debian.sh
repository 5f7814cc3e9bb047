#!/usr/bin/env bash
# What the tests of clusters need of a Debian machine: Slurm and the command `ip`, installed if they
# are missing, by root, who alone may join two network namespaces, too.
set -euo pipefail
needed=()
have() { command -v "$1" > /dev/null || needed+=("$2"); }
have slurmctld slurmctld
have slurmd slurmd
have scontrol slurm-client
have munged munge
have ip iproute2
if [ "$(id -u)" != 0 ]; then
  echo "make test-cluster has to be run as root: it joins two network namespaces${needed[*]:+ and installs ${needed[*]}}." >&2
  exit 1
fi
[ ${#needed[@]} = 0 ] && exit
if ! command -v apt-get > /dev/null; then
  echo "make test-cluster needs ${needed[*]} (so Debian calls them), and here is no apt-get: install them first." >&2
  exit 1
fi
echo "installing ${needed[*]} ..."
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${needed[@]}" > /dev/null
