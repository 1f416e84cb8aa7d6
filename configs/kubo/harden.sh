#!/bin/sh
# Makes the repository of a Kubo fit for an archive: a private swarm, nothing announced or looked up outside, no garbage
# collection, every block fsynced. For a Kubo that Cairn does not manage itself; run it with IPFS_PATH set while the
# daemon is down, or mount it into the image ipfs/kubo as /container-init.d/cairn.sh. It may be run again.
#
#   CAIRN_SWARM=/ip4/10.0.0.11/tcp/4001   the address that the swarm binds (default: loopback)
#   CAIRN_API=/ip4/127.0.0.1/tcp/5001     the address of the RPC API; whoever reaches it commands this Kubo
#
# A repository without swarm.key is given one: that Kubo is alone then. Several of one hospital have the same key
# (IPFS_SWARM_KEY_FILE of the image, or a copy of the file) and each other in Peering.Peers, which is yours to set.
set -eu

key=${IPFS_PATH:-$HOME/.ipfs}/swarm.key
if [ ! -s "$key" ]; then
    (umask 077 && printf '/key/swarm/psk/1.0.0/\n/base16/\n%s\n' "$(od -An -v -N32 -tx1 /dev/urandom | tr -d ' \n')" >"$key")
fi

set_json() { ipfs config --json "$1" "$2"; }

ipfs config profile apply unixfs-v1-2025 >/dev/null
ipfs config Routing.Type none
ipfs config Datastore.GCPeriod 0s
ipfs config Datastore.StorageMax 1000PB
ipfs config Plugins.Plugins.telemetry.Config.Mode off
ipfs config Internal.ShutdownTimeout 20s

set_json Addresses.API "[\"${CAIRN_API:-/ip4/127.0.0.1/tcp/5001}\"]"
set_json Addresses.Swarm "[\"${CAIRN_SWARM:-/ip4/127.0.0.1/tcp/4001}\"]"
set_json Addresses.Gateway '[]'
set_json Addresses.NoAnnounce '[]'
set_json Bootstrap '[]'
set_json DNS.Resolvers '{}'
set_json Ipns.DelegatedPublishers '[]'
set_json Routing.DelegatedRouters '[]'
set_json Swarm.AddrFilters '[]'
for transport in QUIC Relay WebRTCDirect Websocket WebTransport; do
    set_json "Swarm.Transports.Network.$transport" false
done
for key in AutoConf.Enabled AutoTLS.Enabled Discovery.MDNS.Enabled HTTPRetrieval.Enabled Ipns.UsePubsub \
    Provide.Enabled Pubsub.Enabled Swarm.EnableHolePunching Swarm.RelayClient.Enabled Swarm.RelayService.Enabled \
    Version.SwarmCheckEnabled; do
    set_json "$key" false
done
set_json Swarm.DisableNatPortMap true
set_json Swarm.Transports.Network.TCP true

# flatfs does not fsync unless told so; how it is laid out stays as it is.
set_json Datastore.Spec "$(ipfs config Datastore.Spec | sed 's/"sync": *false/"sync": true/')"
