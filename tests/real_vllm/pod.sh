#!/usr/bin/env bash
# What a kubelet makes of the pod, without one: a root file system that cannot be written but for the pod's volumes, a
# user without a name and without rights. Runs in a mount and a PID namespace of its own (unshare), as root.
# pod.sh ROOT MODEL SCRATCH PROGRAMS COMMAND...: PROGRAMS are folders of the image, joined by colons.
set -euo pipefail
root=$1 model=$2 scratch=$3 programs=$4
shift 4

mount -t tmpfs -o mode=755 root "$root"
mkdir -p "$root"/{proc,sys,dev,model,cache,tmp}
for link in bin sbin lib lib64; do cp --no-dereference "/$link" "$root/"; done
IFS=: read -r -a folders <<<"/usr:/etc:$programs"
for folder in "${folders[@]}"; do
    mkdir -p "$root$folder"
    mount --bind "$folder" "$root$folder"
    mount -o remount,bind,ro "$root$folder"
done
mount --bind "$model" "$root/model"
mount -o remount,bind,ro "$root/model"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
for volume in cache tmp; do
    mkdir -p "$scratch/$volume"
    chmod 1777 "$scratch/$volume"
    mount --bind "$scratch/$volume" "$root/$volume"
done
mount -o remount,ro "$root"
exec /usr/sbin/chroot "$root" /usr/bin/setpriv --reuid 65532 --regid 65532 --clear-groups --inh-caps=-all --bounding-set=-all \
    --no-new-privs --pdeathsig KILL "$@"
