#!/bin/bash
# golden-debian.sh OUT.img [SIZE_MIB]: a real bootable Debian disk, default 6 GiB.
#
# GPT: BIOS boot 1 MiB, ESP 128 MiB, swap 256 MiB, ext4 root last so that it can
# grow. Boots by BIOS (GRUB in the BIOS boot partition), UEFI and Secure Boot
# (shim + signed GRUB on the ESP, signed kernel). Login root/labswarm on ttyS0.
# No loop device and no mount of the disk; mmdebstrap needs root.
# The package tree is cached as build/cache/golden-SUITE-*.tar, so that a second
# run takes seconds. OUT.img appears whole or not at all.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$REPO/scripts/disk.sh"
[ $# -ge 1 ] || die "usage: golden-debian.sh OUT.img [SIZE_MIB]"
OUT=$1 SIZE=${2:-6144}
[ "$SIZE" -ge 2048 ] || die "SIZE_MIB is $SIZE, but this Debian needs 2048 or more"

ROOT_UUID=6b1f8a52-0c6e-4f0e-9a53-111111111111
SWAP_UUID=6b1f8a52-0c6e-4f0e-9a53-333333333333
ESP_ID=A1B2C3D4
ESP_START=4096 SWAP_START=266240 ROOT_START=790528 # sectors of 512 bytes
SUITE=$(host_suite)
# The full kernel, because the cloud flavour knows no SATA disks; of its modules only
# what it takes to start from any disk, join a network and log in: the image is to
# stay near 360 MiB of data.
PACKAGES=systemd-sysv,udev,dbus,linux-image-amd64,initramfs-tools,zstd,iproute2,e2fsprogs,login
NO_MODULES="sound drivers fs arch/x86/kvm net/wireless net/mac80211 net/bluetooth net/rxrpc net/tipc net/sctp
  net/sunrpc net/ceph net/openvswitch net/batman-adv net/netfilter lib/test_bpf.ko"
KEEP_MODULES="drivers/ata drivers/block drivers/cdrom drivers/nvme drivers/scsi drivers/virtio drivers/char
  drivers/hid drivers/input drivers/usb/core drivers/usb/common drivers/usb/host drivers/usb/storage
  drivers/net/virtio_net drivers/net/net_failover drivers/net/phy drivers/net/mdio drivers/net/ethernet/intel
  drivers/net/ethernet/realtek drivers/net/ethernet/broadcom/tg3 drivers/ptp drivers/pps drivers/dca
  drivers/i2c/algos drivers/firmware drivers/acpi drivers/tty fs/ext4 fs/jbd2 fs/mbcache fs/fat fs/nls fs/autofs
  fs/fuse fs/efivarfs fs/overlayfs fs/isofs"
DISK_MODULES="ext4 crc32c_generic crc32c_intel virtio_pci virtio_blk virtio_scsi nvme ahci ata_piix sd_mod
  usb_storage uas xhci_pci ehci_pci"
RECIPE=5 # raise when the package tree changes: older cached trees are then left alone

# Nothing to do when this very recipe made OUT.img already.
STAMP=$(cat "${BASH_SOURCE[0]}" "$REPO"/scripts/{lib,disk}.sh <(echo "$SUITE $SIZE") | sha256sum | cut -c1-16)
if [ -s "$OUT" ] && [ "$(cat "$OUT.stamp" 2> /dev/null)" = "$STAMP" ]; then touch "$OUT"; say "$OUT is there"; exit 0; fi

need_root "build the package tree (mmdebstrap)"
need_bootfiles
T0=$(date +%s)
mkdir -p "$CACHE" "$(dirname "$OUT")"
TAR=$CACHE/golden-$SUITE-r$RECIPE.tar
W=$(mktemp -d -p "$CACHE" golden.XXXXXX)
trap 'rm -rf "$W" "$OUT.new.$$"' EXIT
trap 'exit 130' INT TERM HUP

build_tree() {
  local opts=() line sources=$W/sources.list
  host_sources "$SUITE" | while read -r uri s; do
    printf 'deb [signed-by=%s] %s %s main\n' "$KEYRING" "$uri" "$s"
  done > "$sources"
  [ -s "$sources" ] || printf 'deb [signed-by=%s] %s %s main\n' "$KEYRING" "$(host_mirror)" "$SUITE" > "$sources"
  while read -r line; do [ -n "$line" ] && opts+=("--aptopt=${line%;}"); done < <(host_acquire)
  for p in doc man locale info lintian bug; do opts+=("--dpkgopt=path-exclude=/usr/share/$p/*"); done
  for p in $NO_MODULES; do opts+=("--dpkgopt=path-exclude=/*/modules/*/kernel/$p*"); done
  for p in $KEEP_MODULES; do opts+=("--dpkgopt=path-include=/*/modules/*/kernel/$p*"); done
  # A short list instead of "most": the initramfs loads in a fraction of the time.
  mkdir "$W/initramfs"
  printf 'MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=3\n' > "$W/initramfs/labswarm"
  printf '%s\n' $DISK_MODULES > "$W/initramfs/modules"
  say "building the $SUITE package tree (a few minutes, once)"
  mmdebstrap --mode=root --variant=minbase --format=tar --include="$PACKAGES" \
    --aptopt='Acquire::Languages "none"' "${opts[@]}" \
    --essential-hook='mkdir -p "$1/etc/initramfs-tools/conf.d"' \
    --essential-hook="copy-in $W/initramfs/modules /etc/initramfs-tools" \
    --essential-hook="copy-in $W/initramfs/labswarm /etc/initramfs-tools/conf.d" \
    --customize-hook='echo root:labswarm | chroot "$1" chpasswd' \
    --customize-hook='chroot "$1" systemctl enable serial-getty@ttyS0.service' \
    --customize-hook='rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/ssh/ssh_host_*' \
    "$SUITE" "$W/tree.tar" "$sources" > "$W/log" 2>&1 || { tail -20 "$W/log" >&2; die "mmdebstrap could not build the $SUITE tree (log above)"; }
  mv "$W/tree.tar" "$TAR"
}
[ -f "$TAR" ] || build_tree

say "writing $OUT"
IMG=$OUT.new.$$
rm -f "$IMG"; truncate -s "${SIZE}M" "$IMG"
sfdisk -q "$IMG" <<X
label: gpt
label-id: 6B1F8A52-0C6E-4F0E-9A53-000000000000
start=2048,   size=2048,   type=21686148-6449-6E6F-744E-656564454649, name=bios, uuid=6B1F8A52-0C6E-4F0E-9A53-0000000000A1
start=$ESP_START,   size=262144, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=esp, uuid=6B1F8A52-0C6E-4F0E-9A53-0000000000A2
start=$SWAP_START, size=524288, type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F, name=swap, uuid=6B1F8A52-0C6E-4F0E-9A53-0000000000A3
start=$ROOT_START, type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name=root, uuid=6B1F8A52-0C6E-4F0E-9A53-0000000000A4
X
ROOT_SECTORS=$(sfdisk -d "$IMG" | sed -n "s/.*start= *$ROOT_START, size= *\([0-9]*\),.*/\1/p")

R=$W/root; mkdir "$R"
tar -C "$R" --numeric-owner --xattrs -xpf "$TAR"
cat > "$R/etc/fstab" <<X
UUID=$ROOT_UUID / ext4 errors=remount-ro 0 1
UUID=$SWAP_UUID none swap sw 0 0
X
echo golden > "$R/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 golden\n' > "$R/etc/hosts"
: > "$R/etc/machine-id" # empty: every machine makes its own at its first boot
printf '[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n' > "$R/etc/systemd/network/80-dhcp.network"
KERNEL=$(cd "$R/boot" && ls vmlinuz-* | sort -V | tail -1); VER=${KERNEL#vmlinuz-}
mkdir -p "$R/boot/grub"
cat > "$R/boot/grub/grub.cfg" <<X
serial --unit=0 --speed=115200
terminal_input serial console
terminal_output serial console
set timeout=0
search --no-floppy --fs-uuid --set=root $ROOT_UUID
linux /boot/vmlinuz-$VER root=UUID=$ROOT_UUID ro quiet panic=10 console=tty0 console=ttyS0,115200
initrd /boot/initrd.img-$VER
boot
X
# The filesystem goes straight into the disk file at the partition's offset.
mke2fs -q -F -t ext4 -L root -U $ROOT_UUID -E "offset=$((ROOT_START * 512)),lazy_itable_init=1,hash_seed=$ROOT_UUID" \
  -d "$R" "$IMG" $((ROOT_SECTORS / 2))k

# Signed GRUB reads EFI/debian/grub.cfg of the partition it was loaded from.
cat > "$W/esp.cfg" <<X
search --no-floppy --fs-uuid --set=root $ROOT_UUID
set prefix=(\$root)/boot/grub
configfile (\$root)/boot/grub/grub.cfg
X
make_esp "$W/esp" 128 ESP $ESP_ID "$W/esp.cfg"
put "$W/esp" "$IMG" $ESP_START
truncate -s 256M "$W/swap"; mkswap -q -U $SWAP_UUID "$W/swap"
put "$W/swap" "$IMG" $SWAP_START
put_grub_bios "$IMG" 2048 "$W" "$W/esp.cfg" part_gpt ext2
rm -f "$OUT.stamp"
mv "$IMG" "$OUT"
echo "$STAMP" > "$OUT.stamp"
say "$OUT: $SUITE, $(du -m "$OUT" | cut -f1) MiB of data in $SIZE MiB, $(($(date +%s) - T0)) s"
