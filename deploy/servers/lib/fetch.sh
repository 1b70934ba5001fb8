# shellcheck shell=bash
# How servers come to this machine: Debian packages unpacked into a tree of their own, Maven,
# Go modules. Everything lands in $CACHE by name and version, whole or not at all.

# fetched NAME: is it in the cache?
fetched() { [ -e "$CACHE/$1/.whole" ]; }

# fetch NAME WHAT COMMAND...: runs COMMAND with an empty directory as its last argument, which
# becomes $CACHE/NAME if all went well. What it printed is shown only when it failed.
fetch() {
	local name=$1 what=$2 began=$SECONDS made log
	shift 2
	fetched "$name" && return
	say "$name: $what"
	mkdir -p "$CACHE"
	made=$CACHE/.$name.$$
	log=$CACHE/$name.log
	rm -rf "$made"
	mkdir "$made"
	# A process of its own, because "set -e" is off inside a condition.
	if ! "$HERE/servers.sh" --step "$@" "$made" >"$log" 2>&1 9>&-; then
		rm -rf "$made"
		said "$(tail -n 12 "$log")"
		return 1
	fi
	touch "$made/.whole"
	rm -rf "${CACHE:?}/$name"
	mv "$made" "$CACHE/$name"
	say "$name: there after $((SECONDS - began)) s"
}

# debian_tree SUITE PACKAGE PROGRAMS... DIR: a package and all it depends on, unpacked into DIR,
# with a script in DIR for each program. The machine's own packages and /etc/apt stay as they
# are, and no root is needed. DIR/version names the package's.
debian_tree() {
	local suite=$1 package=$2 tree=${!#} programs=("${@:3:$#-3}") apt link deb
	need apt-get dpkg-deb
	apt=$tree/apt
	mkdir -p "$apt"/{lists/partial,cache/archives/partial} "$tree"/usr/{bin,sbin,lib,lib64}
	apt_private "$suite" "$apt"
	export APT_CONFIG=$apt/apt.conf
	timeout 300 apt-get -qq update
	# shellcheck disable=SC2086 # it may be several
	timeout 900 apt-get -qq -y --download-only install $package
	unset APT_CONFIG
	# Some packages say /lib, some /usr/lib: one and the same, as on a real Debian.
	for link in bin sbin lib lib64; do ln -sfn "usr/$link" "$tree/$link"; done
	for deb in "$apt"/cache/archives/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink --no-same-owner -C "$tree"
	done
	dpkg-deb -f "$apt/cache/archives/${package%% *}"_*.deb Version >"$tree/version"
	rm -rf "$apt"
	for link in "${programs[@]}"; do wrap "$tree" "$link"; done
}

# wrap TREE PROGRAM: a script that runs it with the loader and the C library it was built for,
# which need not be this machine's.
wrap() {
	local script=$1/${2##*/} lib
	lib=$(cd "$1" && echo usr/lib/*-linux-gnu)
	cat >"$script" <<-SCRIPT
		#!/bin/sh
		tree=\$(dirname "\$(readlink -f "\$0")")
		exec "\$tree/$(cd "$1" && echo "$lib"/ld-linux-*.so.*)" --argv0 "\$tree/$2" --library-path "\$tree/$lib" "\$tree/$2" "\$@"
	SCRIPT
	chmod +x "$script"
}

# apt_private SUITE DIR: an apt configuration that knows nothing of this machine but where its
# Debian mirror is.
apt_private() {
	local suite=$1 apt=$2 release mirror
	release=$(. /etc/os-release && echo "$VERSION_CODENAME")
	# shellcheck disable=SC2016 # apt's own variables
	mirror=$(apt-get --no-release-info indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
		awk -v release="$release" '$1 == release && !n++ { print $2 }')
	[ -n "$mirror" ] || fail "apt knows no mirror of $release: run apt-get update"
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$apt/sources.list"
	# Servers depend on perl for scripts that are not run here: a stub saves its download.
	cat >"$apt/status" <<-STATUS
		Package: perl
		Status: install ok installed
		Version: 99
		Architecture: $(dpkg --print-architecture)
		Multi-Arch: allowed
		Maintainer: nobody <nobody@localhost>
		Description: stub
	STATUS
	cat >"$apt/apt.conf" <<-CONF
		Dir::Etc::sourcelist "$apt/sources.list";
		Dir::Etc::sourceparts "/dev/null";
		Dir::Etc::preferences "/dev/null";
		Dir::Etc::preferencesparts "/dev/null";
		Dir::State "$apt";
		Dir::State::status "$apt/status";
		Dir::Cache "$apt/cache";
		Dir::Log "$apt";
		Acquire::Languages "none";
		APT::Install-Recommends "0";
		APT::Sandbox::User "$(id -un)";
		Debug::NoLocking "1";
	CONF
}

# go_tool MODULE PACKAGE LDFLAGS DIR: builds a stock server from the module of its own beside
# this folder, so that its dependencies stay out of the product's go.mod.
go_tool() {
	need go
	go -C "$HERE/$1" build -trimpath -ldflags "-s -w $3" -o "$4/" "$2"
}

# maven POM DIR: the jars of a pom.xml and all they depend on.
maven() {
	mvn -q -B -f "$1" dependency:copy-dependencies -DoutputDirectory="$2/lib" -DincludeScope=runtime
}

# need_java: a Java 17 or later and Maven, installed if they are missing.
need_java() {
	if command -v mvn >/dev/null && java_major >/dev/null && [ "$(java_major)" -ge 11 ]; then return; fi
	[ "$(id -u)" = 0 ] || fail "RocketMQ needs Java 11 or later and Maven: install them, or run this as root"
	install_packages openjdk-17-jre-headless maven
}

java_major() { java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p'; }

# install_packages PACKAGES...: onto this machine, which starts none of their services.
install_packages() {
	local policy=/usr/sbin/policy-rc.d ours=
	need apt-get
	say "installing $*"
	if [ ! -e $policy ]; then
		printf '#!/bin/sh\nexit 101\n' >$policy
		chmod +x $policy
		ours=1
	fi
	{ apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$@"; } \
		>"$CACHE/apt.log" 2>&1 || { [ -z "$ours" ] || rm $policy; said "$(tail -n 12 "$CACHE/apt.log")"; fail "apt-get cannot install $*"; }
	[ -z "$ours" ] || rm $policy
}
