#!/usr/bin/env bash
# Installs what the browser test needs: Chromium and fonts by apt, the driver by npm, pinned
# in package-lock.json. Does nothing twice.
set -euo pipefail
cd "$(dirname "$0")"

if ! command -v chromium >/dev/null; then
  sudo=""
  if [ "$(id -u)" != 0 ]; then sudo="sudo"; fi
  $sudo apt-get update -qq
  # One by one: what is there already must not hold up the others.
  for package in chromium fonts-noto-core fonts-noto-cjk; do
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$package" >/dev/null
  done
fi
command -v node >/dev/null || { echo "setup.sh: Node 20 or later is needed" >&2; exit 1; }
if ! cmp -s package-lock.json node_modules/.lock; then
  npm ci --no-audit --no-fund --loglevel=error
  cp package-lock.json node_modules/.lock
fi
echo "browser test: $(chromium --version 2>/dev/null), node $(node --version)"
