#!/bin/sh
# Installs the recorded telephone prompts that some tests need. Without them those tests skip.
package=asterisk-core-sounds-en-wav
[ ! -e /usr/share/asterisk/sounds/en_US_f_Allison/activated.wav ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing $package (10 s)"
    { apt-get update; apt-get install -y --no-install-recommends $package; } >/dev/null 2>&1 && exit
fi
echo "tests on recorded speech will be skipped. To run them, type: sudo apt-get install $package"
