"""Request and event codecs of vendors, without their sockets."""
