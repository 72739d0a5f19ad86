#!/bin/bash
# setup.sh [build] [demo] [bench]: what this machine needs to build and run labswarm.
#
#   build   Go, and what boot files and initramfs are made with
#   demo    build + QEMU, firmware, dnsmasq, the tools of the golden images and tests
#   bench   optional: the programs that `make bench-swarm` compares labswarm with
#
# Looks first and installs only what is missing, with this machine's own apt
# sources; does nothing, quickly, when all is there. Installing needs root.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
GROUPS_WANTED=${*:-demo}
GO_MIN=1.26

# "PROGRAM-or-/FILE PACKAGE": the package is wanted when the first is absent.
BUILD_NEEDS="
git git
make make
depmod kmod
dpkg-deb dpkg
zstd zstd
xz xz-utils
sha256sum coreutils
/etc/ssl/certs/ca-certificates.crt ca-certificates
/usr/share/keyrings/debian-archive-keyring.gpg debian-archive-keyring
"
DEMO_NEEDS="
qemu-system-x86_64 qemu-system-x86
/usr/lib/ipxe/qemu/pxe-virtio.rom|/usr/share/qemu/pxe-virtio.rom ipxe-qemu
/usr/share/OVMF/OVMF_CODE_4M.fd ovmf
dnsmasq dnsmasq-base
ip iproute2
ping iputils-ping
mmdebstrap mmdebstrap
mcopy mtools
mkfs.vfat dosfstools
sfdisk fdisk
sgdisk gdisk
mke2fs e2fsprogs
cpio cpio
grub-mkimage grub-common
/usr/lib/grub/i386-pc/boot.img grub-pc-bin
mkfs.ntfs ntfs-3g
mkfs.xfs xfsprogs
mkfs.btrfs btrfs-progs
mkfs.exfat exfatprogs
qemu-img qemu-utils
gzip gzip
bzip2 bzip2
prlimit util-linux
partclone.ntfs partclone
ntfs-3g ntfs-3g
setfattr attr
mount.exfat-fuse exfat-fuse
losetup mount
ssh-keygen openssh-client
ps procps
tmux tmux
aria2c aria2
/usr/share/doc/python3-libtorrent python3-libtorrent
zstd zstd
qemu-img qemu-utils
"
# bench-swarm lists what is absent and goes on without it.
BENCH_NEEDS="
ip iproute2
aria2c aria2
udp-sender udpcast
mke2fs e2fsprogs
/usr/share/doc/python3-libtorrent python3-libtorrent
"

# have NEED: a program in PATH, or a file ("a|b" = one of them).
have() {
  local alt
  case $1 in
  /*) for alt in ${1//|/ }; do [ -e "$alt" ] && return 0; done; return 1 ;;
  *) command -v "$1" > /dev/null ;;
  esac
}

missing_packages() {
  local need pkg
  while read -r need pkg; do
    [ -n "$need" ] || continue
    have "$need" || printf '%s\n' "$pkg"
  done <<< "$1" | sort -u
}

check_go() {
  local v
  have go || die "Go $GO_MIN or newer not found in PATH; install it from https://go.dev/doc/install and run this again"
  # Inside the module an older Go (1.21 on) fetches the toolchain that go.mod names.
  v=$(cd "$REPO" && go env GOVERSION 2> /dev/null) || v=
  v=${v#go}
  [ -n "$v" ] && [ "$(printf '%s\n%s\n' "$GO_MIN" "$v" | sort -V | head -1)" = "$GO_MIN" ] ||
    die "Go $GO_MIN or newer is needed, this is $(go version 2> /dev/null || echo unknown); see https://go.dev/doc/install"
}

needs=$BUILD_NEEDS
for g in $GROUPS_WANTED; do
  case $g in
  build) ;;
  demo | e2e | all) needs=$needs$DEMO_NEEDS ;;
  bench) needs=$needs$BENCH_NEEDS ;;
  *) die "usage: setup.sh [build] [demo] [bench]" ;;
  esac
done
[ "$(dpkg --print-architecture 2> /dev/null)" = amd64 ] || die "needs Debian on amd64"
host_suite > /dev/null

mapfile -t missing < <(missing_packages "$needs")
if [ ${#missing[@]} -gt 0 ]; then
  need_root "install ${missing[*]}"
  say "installing ${missing[*]}"
  log=$(mktemp); trap 'rm -f "$log"' EXIT
  # Old lists name files that are gone from the archive: always refresh before installing.
  apt-get -q=2 update > "$log" 2>&1 || warn "apt-get update: $(grep -m1 '^[EW]:' "$log" || tail -1 "$log")"
  apt-get -q=2 install -y --no-install-recommends -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 "${missing[@]}" > "$log" 2>&1 ||
    { tail -15 "$log" >&2; die "apt-get could not install: ${missing[*]}"; }
  mapfile -t missing < <(missing_packages "$needs")
  [ ${#missing[@]} = 0 ] || die "still missing after the installation: ${missing[*]}"
fi
check_go
say "all there for: $GROUPS_WANTED"
