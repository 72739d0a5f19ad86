#!/bin/bash
# golden-tiny.sh OUT.img [options]: a disk that boots, prints
# "LABSWARM-BOOTED tinyos fw=.. sb=.." on ttyS0 and powers off. For fast tests.
#
#   --table gpt|mbr      partition table (default gpt)
#   --with FS            data partition: ext4 (default), fat, ntfs, xfs, swap, none
#   --esp MIB            size of the EFI system partition (default 48)
#   --data MIB           size of the data partition (default 24; xfs 320)
#   --fill MIB           random bytes in the data partition's file (default 8)
#   --tail MIB           unpartitioned space at the end (default 1)
#
# Boots by BIOS (GRUB), UEFI and Secure Boot (shim, signed GRUB, signed kernel).
# The kernel is the one scripts/bootfiles.sh fetched; the initramfs holds only
# scripts/tinyos. Nothing on the disk is ever written by this OS. No root needed.
#
# The data partition (ext4, xfs) looks like the root of a Linux system: its
# /etc/hostname is what the OS prints as its name.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
. "$REPO/scripts/disk.sh"
USAGE="usage: golden-tiny.sh OUT.img [--table gpt|mbr] [--with ext4|fat|ntfs|xfs|swap|none] [--esp MIB] [--data MIB] [--fill MIB] [--tail MIB]"
[ $# -ge 1 ] || die "$USAGE"
OUT=$1; shift
TABLE=gpt WITH=ext4 ESP=48 DATA= FILL=8 TAIL=1
while [ $# -gt 0 ]; do
  [ $# -ge 2 ] || die "$USAGE"
  case $1 in
  --table) TABLE=$2 ;; --with) WITH=$2 ;; --esp) ESP=$2 ;;
  --data) DATA=$2 ;; --fill) FILL=$2 ;; --tail) TAIL=$2 ;;
  *) die "$USAGE" ;;
  esac
  shift 2
done
# mkfs.xfs of Debian 12 and 13 refuses less than 300 MiB.
if [ -z "$DATA" ]; then if [ "$WITH" = xfs ]; then DATA=320; else DATA=24; fi; fi
KERNEL=${LABSWARM_KERNEL:-$REPO/build/boot/virtual/vmlinuz}
need_bootfiles
# Nothing to do when this very recipe made OUT.img already.
STAMP=$(cat "${BASH_SOURCE[0]}" "$REPO"/scripts/{lib,disk}.sh "$REPO/scripts/tinyos/main.go" \
  <(stat -c %Y "$KERNEL"; echo "$TABLE $WITH $ESP $DATA $FILL $TAIL") | sha256sum | cut -c1-16)
if [ -s "$OUT" ] && [ "$(cat "$OUT.stamp" 2> /dev/null)" = "$STAMP" ]; then touch "$OUT"; say "$OUT is there"; exit 0; fi
mkdir -p "$CACHE" "$(dirname "$OUT")"
W=$(mktemp -d -p "$CACHE" tiny.XXXXXX)
IMG=$OUT.new.$$
trap 'rm -rf "$W" "$IMG"' EXIT
trap 'exit 130' INT TERM HUP
ESP_ID=7157B007 ESP_UUID=7157-B007 DATA_UUID=7157b007-0c6e-4f0e-9a53-0000000000d1

# --- the OS: one static program as /init
mkdir "$W/initramfs"
(cd "$REPO" && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$W/initramfs/init" ./scripts/tinyos)
mkdir "$W/initramfs/dev"
(cd "$W/initramfs" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 --reproducible) | zstd -q -10 > "$W/initrd.img"
# The name reaches the OS on the kernel's command line. GRUB 2.06 can put no file
# into a variable, and packs initramfs files that Linux refuses (newc: names without
# their end), so it runs /etc/hostname as a script: each name it may hold is a command.
{
  for n in tinyos $(seq -f 'pc%02g' 64); do echo "function $n { set name=$n; }"; done
  echo "search --no-floppy --fs-uuid --set=root $ESP_UUID"
  case $WITH in ext4 | xfs)
    echo "search --no-floppy --fs-uuid --set=data $DATA_UUID"
    echo 'source ($data)/etc/hostname' ;;
  esac
  echo 'linux /vmlinuz console=ttyS0,115200 quiet panic=5 tinyos.name=$name'
  echo 'initrd /initrd.img'
  echo boot
} > "$W/grub.cfg"
# What is built into GRUB's core is read by a simpler parser.
cat > "$W/early.cfg" <<X
search --no-floppy --fs-uuid --set=root $ESP_UUID
configfile (\$root)/EFI/debian/grub.cfg
X

# --- the disk
P1=2048 # first sector of the first partition
if [ "$TABLE" = gpt ]; then
  E=$((P1 + 2048)); D=$((E + ESP * 2048))
  {
    echo "label: gpt"; echo "label-id: 7157B007-0C6E-4F0E-9A53-000000000000"
    echo "start=$P1, size=2048, type=21686148-6449-6E6F-744E-656564454649, name=bios"
    echo "start=$E, size=$((ESP * 2048)), type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name=esp"
    case $WITH in
    none) ;;
    swap) echo "start=$D, size=$((DATA * 2048)), type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F, name=data" ;;
    ntfs | fat) echo "start=$D, size=$((DATA * 2048)), type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7, name=data" ;;
    *) echo "start=$D, size=$((DATA * 2048)), type=0FC63DAF-8483-4772-8E79-3D69D8477DE4, name=data" ;;
    esac
  } > "$W/table"
  CORE=$P1 PART=part_gpt
elif [ "$TABLE" = mbr ]; then
  E=$P1; D=$((E + ESP * 2048))
  {
    echo "label: dos"; echo "label-id: 0x7157b007"
    echo "start=$E, size=$((ESP * 2048)), type=ef, bootable"
    case $WITH in
    none) ;;
    swap) echo "start=$D, size=$((DATA * 2048)), type=82" ;;
    ntfs) echo "start=$D, size=$((DATA * 2048)), type=7" ;;
    fat) echo "start=$D, size=$((DATA * 2048)), type=c" ;;
    *) echo "start=$D, size=$((DATA * 2048)), type=83" ;;
    esac
  } > "$W/table"
  CORE=1 PART=part_msdos # the gap between the table and the first partition
else
  die "--table $TABLE: gpt or mbr"
fi
[ "$WITH" != none ] || DATA=0
rm -f "$IMG"; truncate -s $((D * 512 + (DATA + TAIL + 1) * 1048576)) "$IMG"
sfdisk -q "$IMG" < "$W/table"

make_esp "$W/esp" "$ESP" TINYESP $ESP_ID "$W/grub.cfg"
mcopy -i "$W/esp" "$KERNEL" ::vmlinuz
mcopy -i "$W/esp" "$W/initrd.img" ::initrd.img
put "$W/esp" "$IMG" $E
put_grub_bios "$IMG" $CORE "$W" "$W/early.cfg" $PART fat ext2 xfs

# --- the data partition: a marker, a file of random bytes, a few small files, and
# what the agent changes on each PC
mkdir -p "$W/data/etc/ssh" "$W/data/usr/lib" "$W/data/var/lib/dbus"
echo 'NAME="labswarm tiny OS"' > "$W/data/usr/lib/os-release"
echo tinyos > "$W/data/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 tinyos\n' > "$W/data/etc/hosts"
echo 7157b0070c6e4f0e9a530000000000d1 | tee "$W/data/etc/machine-id" > "$W/data/var/lib/dbus/machine-id"
echo 'no key, only its place' > "$W/data/etc/ssh/ssh_host_ed25519_key"
echo "labswarm tiny image, $TABLE, $WITH" > "$W/data/etc/marker"
head -c "${FILL}M" /dev/urandom > "$W/data/random.bin"
for i in 1 2 3 4 5; do head -c $((i * 1777)) /dev/urandom > "$W/data/etc/small$i"; done
# proto DIR lists a folder's content as a prototype file wants it.
proto() {
  local f
  for f in "$1"/*; do
    if [ -d "$f" ]; then printf '%s d--755 0 0\n' "${f##*/}"; proto "$f"; echo '$'; else printf '%s ---644 0 0 %s\n' "${f##*/}" "$f"; fi
  done
}

F=$W/fs
truncate -s "${DATA}M" "$F"
case $WITH in
none) ;;
ext4) mke2fs -q -F -t ext4 -L tinydata -U $DATA_UUID -d "$W/data" "$F" ;;
swap) mkswap -q "$F" ;;
fat)
  mkfs.vfat -n TINYDATA "$F" > /dev/null
  mcopy -s -i "$F" "$W/data/etc" "$W/data/random.bin" :: ;;
ntfs)
  mkfs.ntfs -q -F -f -L tinydata "$F" > /dev/null 2>&1 || die "mkfs.ntfs could not make the data partition (package ntfs-3g)"
  ntfscp -q -f "$F" "$W/data/etc/marker" marker > /dev/null
  ntfscp -q -f "$F" "$W/data/random.bin" random.bin > /dev/null ;;
xfs)
  # A prototype file fills the filesystem without mounting it (mkfs.xfs(8)).
  {
    printf '/dev/null\n0 0\nd--755 0 0\n'
    proto "$W/data"
    echo '$'
  } > "$W/proto"
  mkfs.xfs -q -f -L tinydata -m uuid=$DATA_UUID -p "$W/proto" "$F" > "$W/log" 2>&1 || die "mkfs.xfs could not make the data partition: $(tail -1 "$W/log")" ;;
*) die "--with $WITH: ext4, fat, ntfs, xfs, swap or none" ;;
esac
[ "$WITH" = none ] || put "$F" "$IMG" $D
rm -f "$OUT.stamp"
mv "$IMG" "$OUT"
echo "$STAMP" > "$OUT.stamp"
say "$OUT: $TABLE, $WITH, $(du -m "$OUT" | cut -f1) MiB of data in $(($(stat -c %s "$OUT") / 1048576)) MiB"
