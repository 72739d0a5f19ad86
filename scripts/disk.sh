# disk.sh: functions that lay out the golden disks. Sourced after lib.sh.
# shellcheck shell=bash

SHIM=$CACHE/loaders/shimx64.efi
GRUB_SIGNED=$CACHE/loaders/grubx64.efi
GRUB_BIOS=/usr/lib/grub/i386-pc

# need_bootfiles fetches loaders and kernels when they are not there yet.
need_bootfiles() { "$REPO/scripts/bootfiles.sh" "$REPO/build/boot"; }

# put FILE DISK SECTOR copies FILE into DISK without touching the rest; holes stay holes.
put() { dd if="$1" of="$2" bs=1M oflag=seek_bytes seek=$(($3 * 512)) conv=notrunc,sparse status=none; }

# make_esp FILE MIB LABEL ID GRUB.CFG makes a FAT32 filesystem that Secure Boot
# firmware starts: the fallback path for a fresh machine, EFI/debian for chainloaders.
# Ids are fixed, so that grub.cfg can name the filesystem.
make_esp() {
  local f=$1 cfg=$5
  rm -f "$f"; truncate -s "$2M" "$f"
  mkfs.vfat -F 32 -n "$3" -i "$4" "$f" > /dev/null
  mmd -i "$f" ::EFI ::EFI/BOOT ::EFI/debian
  mcopy -i "$f" "$SHIM" ::EFI/BOOT/BOOTX64.EFI
  mcopy -i "$f" "$GRUB_SIGNED" ::EFI/BOOT/grubx64.efi
  mcopy -i "$f" "$SHIM" ::EFI/debian/shimx64.efi
  mcopy -i "$f" "$GRUB_SIGNED" ::EFI/debian/grubx64.efi
  mcopy -i "$f" "$cfg" ::EFI/debian/grub.cfg
}

# put_grub_bios DISK SECTOR WORKDIR EARLY.CFG MODULES... installs GRUB for BIOS as
# grub-install would, without a device: core.img at SECTOR (the BIOS boot partition,
# or the gap behind an MBR table), boot.img's code in the first 440 bytes.
# Offsets: GRUB_BOOT_MACHINE_KERNEL_SECTOR 0x5c, the drive check 0x66, and the
# first block list entry 12 bytes before the end of core.img's first sector.
put_grub_bios() {
  local disk=$1 at=$2 w=$3 cfg=$4; shift 4
  grub-mkimage -O i386-pc -c "$cfg" -p /boot/grub -o "$w/core.img" \
    biosdisk normal linux search search_fs_uuid search_fs_file configfile serial terminal echo test "$@"
  cp "$GRUB_BIOS/boot.img" "$w/boot.img"
  le64 "$at" | dd of="$w/boot.img" bs=1 seek=92 conv=notrunc status=none
  printf '\x90\x90' | dd of="$w/boot.img" bs=1 seek=102 conv=notrunc status=none
  le64 $((at + 1)) | dd of="$w/core.img" bs=1 seek=500 conv=notrunc status=none
  dd if="$w/boot.img" of="$disk" bs=440 count=1 conv=notrunc status=none
  dd if="$w/core.img" of="$disk" bs=512 seek="$at" conv=notrunc status=none
}
