#!/bin/sh
# Installs Debian's nginx and HAProxy for the tests of tests/e2e (run as root). Neither is
# started as a service.
set -eu
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' >$policy
	chmod +x $policy
	trap 'rm -f $policy' EXIT
fi
apt-get -qq update
DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install nginx-light haproxy >/dev/null
nginx -v
haproxy -v | head -n 1
