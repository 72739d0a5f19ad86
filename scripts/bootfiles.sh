#!/bin/bash
# bootfiles.sh OUTDIR [--refresh]: the files a PC loads before the agent runs.
#
# OUTDIR/shimx64.efi grubx64.efi            UEFI and Secure Boot, signed by the distribution
# OUTDIR/undionly.kpxe undionly.kkpxe ipxe.pxe snponly.efi ipxe.efi   iPXE
# OUTDIR/{virtual,lab}/vmlinuz              signed kernels: cloud flavour, full flavour
# OUTDIR/bootfiles.json                     package, version, SHA-256 of each of them
# build/cache/kernel-{virtual,lab}/lib/modules/VERSION   module trees with depmod's index
# build/cache/loaders/{shimx64,grubx64}.efi  what a Debian *disk* starts with (golden images)
# build/cache/firmware/                     what belongs below lib/firmware (lab set)
#
# Packages are downloaded and unpacked, never installed; the host's apt is not
# touched. Needs no root. Nothing is done when all is there; --refresh looks for
# newer packages.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[ $# -ge 1 ] || die "usage: bootfiles.sh OUTDIR [--refresh]"
mkdir -p "$1" "$CACHE"; OUT=$(cd "$1" && pwd)
STAMP=$(cat "$REPO/scripts/bootfiles.sh" "$REPO/scripts/lib.sh" | sha256sum | cut -c1-16)

complete() {
  local f
  [ "$(cat "$CACHE/bootfiles.stamp" 2>/dev/null)" = "$STAMP" ] || return 1
  for f in shimx64.efi grubx64.efi undionly.kpxe undionly.kkpxe ipxe.pxe snponly.efi ipxe.efi virtual/vmlinuz lab/vmlinuz bootfiles.json; do
    [ -s "$OUT/$f" ] || return 1
  done
  compgen -G "$CACHE/kernel-virtual/lib/modules/*/modules.dep" > /dev/null &&
    [ -s "$CACHE/loaders/grubx64.efi" ] && compgen -G "$CACHE/kernel-lab/lib/modules/*/modules.dep" > /dev/null
}
if [ "${2:-}" != --refresh ] && complete; then touch "$OUT/bootfiles.json"; say "boot files are there: $OUT"; exit 0; fi

SUITE=$(host_suite)
DEBS=$CACHE/debs
W=$(mktemp -d -p "$CACHE" bootfiles.XXXXXX)
trap 'rm -rf "$W"' EXIT
trap 'exit 130' INT TERM HUP
rm -f "$CACHE/bootfiles.stamp"

say "reading the $SUITE archive"
OWN=$CACHE/apt-$SUITE
iso_apt "$SUITE" main "$OWN" || die "apt could not read this machine's Debian archive: $(tail -1 "$OWN/log/update")"

# unpack ROOT PACKAGE unpacks PACKAGE of the apt root ROOT into $W/PACKAGE.
declare -A VERSION_OF
unpack() {
  local deb
  deb=$(iso_fetch "$1" "$2" "$DEBS") || return 1
  VERSION_OF[$2]=$(iso_version "$1" "$2")
  rm -rf "${W:?}/$2"; mkdir "$W/$2"; dpkg -x "$deb" "$W/$2"
}

# place PACKAGE FILE NAME serves FILE of PACKAGE as NAME; a line of the record for it.
RECORDS=()
place() {
  local src
  src=$(cd "$W/$1" && compgen -G "$2" | head -1) || die "package $1 ${VERSION_OF[$1]} holds no $2"
  mkdir -p "$OUT/$(dirname "$3")"
  install -m 0644 "$W/$1/$src" "$OUT/$3.new" && mv "$OUT/$3.new" "$OUT/$3"
  RECORDS+=("$(printf '{"file":"%s","package":"%s","version":"%s","sha256":"%s"}' \
    "$3" "$1" "${VERSION_OF[$1]}" "$(sha256sum "$OUT/$3" | cut -d' ' -f1)")")
}

# Debian 13's signed GRUB speaks HTTP and its iPXE is six years younger.
NEW=$OWN
if [ "$SUITE" = bookworm ]; then
  NEW=$CACHE/apt-trixie
  if ! iso_apt trixie main "$NEW"; then
    warn "Debian 13's GRUB and iPXE cannot be had from this machine's mirror; bookworm's are used, UEFI machines then load the kernel by TFTP"
    NEW=$OWN
  fi
fi
unpack "$OWN" shim-signed || die "package shim-signed cannot be downloaded: $(tail -1 "$OWN/log/download")"
place shim-signed usr/lib/shim/shimx64.efi.signed shimx64.efi
# Golden disks take these instead of installed packages, whose installation scripts
# may touch the boot loader of the machine we run on.
unpack "$OWN" grub-efi-amd64-signed || die "package grub-efi-amd64-signed cannot be downloaded: $(tail -1 "$OWN/log/download")"
mkdir -p "$CACHE/loaders"
install -m 0644 "$W/shim-signed/usr/lib/shim/shimx64.efi.signed" "$CACHE/loaders/shimx64.efi"
install -m 0644 "$W/grub-efi-amd64-signed/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed" "$CACHE/loaders/grubx64.efi"
for p in grub-efi-amd64-signed ipxe; do
  unpack "$NEW" $p || unpack "$OWN" $p || die "package $p cannot be downloaded: $(tail -1 "$OWN/log/download")"
done
place grub-efi-amd64-signed usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed grubx64.efi
for f in undionly.kpxe undionly.kkpxe ipxe.pxe snponly.efi; do place ipxe usr/lib/ipxe/$f $f; done
# bookworm keeps it in boot/, trixie names it by architecture.
if compgen -G "$W/ipxe/usr/lib/ipxe/ipxe-amd64.efi" > /dev/null; then place ipxe usr/lib/ipxe/ipxe-amd64.efi ipxe.efi
else place ipxe 'boot/ipxe.efi' ipxe.efi; fi

# kernel SET METAPACKAGE: the signed kernel and its module tree.
kernel() {
  local set=$1 meta=$2 pkg dir tree
  pkg=$(APT_CONFIG=$OWN/apt.conf apt-cache depends --no-recommends --no-suggests "$meta" 2>/dev/null |
    sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -1)
  [ -n "$pkg" ] || die "package $meta is not in the $SUITE archive"
  case $pkg in *-unsigned) die "$meta depends on the unsigned kernel $pkg; Secure Boot needs the signed one" ;; esac
  unpack "$OWN" "$pkg" || die "package $pkg cannot be downloaded: $(tail -1 "$OWN/log/download")"
  place "$pkg" 'boot/vmlinuz-*' "$set/vmlinuz"
  tree=$W/kernel-$set; mkdir -p "$tree/lib" "$tree/usr"
  dir=$W/$pkg/lib/modules; [ -d "$dir" ] || dir=$W/$pkg/usr/lib/modules
  mv "$dir" "$tree/lib/modules"
  ln -s ../lib "$tree/usr/lib" # depmod of Debian 13 looks below usr/lib
  cp "$W/$pkg"/boot/config-* "$tree/" 2> /dev/null || true
  depmod -b "$tree" "$(ls "$tree/lib/modules")" 2> "$W/depmod.log" || { cat "$W/depmod.log" >&2; die "depmod failed for $pkg"; }
  rm -rf "$CACHE/kernel-$set"; mv "$tree" "$CACHE/kernel-$set"
  rm -rf "${W:?}/$pkg"
}
kernel virtual linux-image-cloud-amd64
kernel lab linux-image-amd64

# NIC firmware, non-free: real PCs with Realtek or Broadcom NICs want it, VMs do not.
firmware() {
  local root=$CACHE/apt-firmware p dir missing=()
  if ! iso_apt "$SUITE" non-free-firmware "$root"; then
    warn "NIC firmware (non-free-firmware) cannot be had from this machine's mirror; the lab set goes without it"
    return
  fi
  mkdir "$W/firmware"
  for p in firmware-realtek firmware-bnx2 firmware-bnx2x firmware-misc-nonfree; do
    if ! unpack "$root" $p; then missing+=($p); continue; fi
    dir=$W/$p/lib/firmware; [ -d "$dir" ] || dir=$W/$p/usr/lib/firmware
    cp -a "$dir/." "$W/firmware/"
    rm -rf "${W:?}/$p"
  done
  [ ${#missing[@]} = 0 ] || warn "NIC firmware not to be had: ${missing[*]}; the lab set goes without it"
  rm -rf "$CACHE/firmware"; mv "$W/firmware" "$CACHE/firmware"
}
firmware

{
  printf '{"suite":"%s","files":[\n' "$SUITE"
  (IFS=$'\n'; printf '%s\n' "${RECORDS[*]}" | sed '$!s/$/,/')
  printf ']}\n'
} > "$OUT/bootfiles.json.new"
mv "$OUT/bootfiles.json.new" "$OUT/bootfiles.json"
echo "$STAMP" > "$CACHE/bootfiles.stamp"
say "boot files ready: $OUT (GRUB ${VERSION_OF[grub-efi-amd64-signed]}, iPXE ${VERSION_OF[ipxe]})"
