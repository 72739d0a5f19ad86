# lib.sh: shared shell functions of the set-up scripts. Sourced by bash, never run.
# What it does: messages, the machine's own mirror, isolated apt roots, atomic
# outputs. It changes nothing outside build/.
# shellcheck shell=bash

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${LABSWARM_CACHE:-$REPO/build/cache}
export LC_ALL=C DEBIAN_FRONTEND=noninteractive
umask 022
# sfdisk, mkfs.* and friends are in sbin, which an ordinary user's PATH may lack.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say()  { printf '%s: %s\n' "${0##*/}" "$*"; }
warn() { printf '%s: warning: %s\n' "${0##*/}" "$*" >&2; }
die()  { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

need_root() { [ "$(id -u)" = 0 ] || die "needs root to $1; run it again with sudo"; }

# host_suite prints the codename of this machine's Debian release (bookworm, trixie).
host_suite() {
  local id code
  id=$(. /etc/os-release && printf %s "${ID:-}") code=$(. /etc/os-release && printf %s "${VERSION_CODENAME:-}")
  [ "$id" = debian ] && [ -n "$code" ] ||
    die "this machine runs '${id:-unknown}', but Debian 12 or 13 is needed: boot files and the golden image come from its packages"
  printf '%s\n' "$code"
}

# host_sources prints "URI SUITE" of every Debian archive this machine's apt uses
# for the given codename: the release itself, its updates, its security archive.
host_sources() {
  apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Identifier: Packages' 2>/dev/null |
    awk -v s="$1" '$3 == "main" && ($2 == s || $2 == s "-updates" || $2 == s "-security") && !seen[$1 $2]++ { print $1, $2 }'
}

# host_mirror prints the URI from which this machine gets its own Debian release.
host_mirror() {
  local s uri
  s=$(host_suite)
  uri=$(host_sources "$s" | awk -v s="$s" '$2 == s { print $1; exit }')
  # Sources that say "stable" instead of the codename.
  [ -n "$uri" ] || uri=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 'Identifier: Packages' 2>/dev/null |
    awk -v s="$s" '$2 == s && $3 == "main" { print $1; exit }')
  [ -n "$uri" ] || die "no Debian $s archive found in this machine's apt sources (apt-get indextargets); add one and run apt-get update"
  printf '%s\n' "$uri"
}

KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# host_acquire prints the machine's own transfer settings (proxy, CA file,
# date checks, retries) as apt.conf lines, so that what works for apt works here.
host_acquire() {
  apt-config dump | grep -E '^Acquire::((http|https|ftp)::.*|Check-Valid-Until|Check-Date|Retries|ForceIPv[46]) "' |
    grep -vE ' "";$|::(Dl-Limit|User-Agent)' || true
}

# iso_apt SUITE COMPONENTS DIR makes an apt root of its own under DIR: own lists,
# own (empty) package status, own sources. The host's apt is never touched.
# Afterwards APT_CONFIG=DIR/apt.conf selects it. Fails when the archive cannot be read.
iso_apt() {
  local suite=$1 comps=$2 dir=$3 own
  own=$(host_suite)
  mkdir -p "$dir"/{lists/partial,archives/partial,etc/parts,log}
  : > "$dir/status"
  {
    if [ "$suite" = "$own" ] && [ -n "$(host_sources "$suite")" ]; then
      host_sources "$suite"
    else
      printf '%s %s\n' "$(host_mirror)" "$suite"
    fi
  } | while read -r uri s; do
    printf 'deb [signed-by=%s] %s %s %s\n' "$KEYRING" "$uri" "$s" "$comps"
  done > "$dir/sources.list"
  {
    host_acquire
    cat <<X
Dir::State "$dir";
Dir::State::lists "$dir/lists";
Dir::State::status "$dir/status";
Dir::Cache "$dir";
Dir::Cache::archives "$dir/archives";
Dir::Etc::sourcelist "$dir/sources.list";
Dir::Etc::sourceparts "$dir/etc/parts";
Dir::Etc::main "$dir/etc/none";
Dir::Etc::parts "$dir/etc/parts";
Dir::Etc::preferences "$dir/etc/none";
Dir::Etc::preferencesparts "$dir/etc/parts";
Dir::Log "$dir/log";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
X
  } > "$dir/apt.conf"
  APT_CONFIG=$dir/apt.conf apt-get -q=2 -o APT::Update::Error-Mode=any update > "$dir/log/update" 2>&1
}

# iso_version DIR PACKAGE prints the version that the apt root DIR would give.
iso_version() {
  APT_CONFIG=$1/apt.conf apt-cache show --no-all-versions "$2" 2>/dev/null | sed -n 's/^Version: //p' | head -1
}

# iso_fetch DIR PACKAGE OUTDIR downloads PACKAGE's .deb once and prints its path.
iso_fetch() {
  local dir=$1 pkg=$2 out=$3 v name
  v=$(iso_version "$dir" "$pkg"); [ -n "$v" ] || return 1
  mkdir -p "$out"
  name=$out/${pkg}_${v//:/%3a}_amd64.deb
  if ! [ -f "$name" ] && ! [ -f "${name%_amd64.deb}_all.deb" ]; then
    (cd "$out" && APT_CONFIG=$dir/apt.conf apt-get -q=2 download "$pkg=$v" > "$dir/log/download" 2>&1) || return 1
  fi
  [ -f "$name" ] || name=${name%_amd64.deb}_all.deb
  [ -f "$name" ] && printf '%s\n' "$name"
}

# le64 N writes N as eight little-endian bytes.
le64() {
  local n=$1 i
  for i in 1 2 3 4 5 6 7 8; do printf "\\x$(printf %02x $((n & 255)))"; n=$((n >> 8)); done
}
