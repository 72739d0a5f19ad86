# libtorrent contender: lt.py TORRENT DIR ADDRESS seed|host default|tuned
import json, os, sys, time
import libtorrent as lt

torrent, folder, address, role, mode = sys.argv[1:]
settings = {"listen_interfaces": address + ":6881",
            # what would leave the room is off; everything else is the library's default
            "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False}
if mode == "tuned":
    settings.update({"enable_outgoing_utp": False, "enable_incoming_utp": False, "unchoke_slots_limit": 4,
                     "seed_choking_algorithm": 1, "piece_extent_affinity": False, "mixed_mode_algorithm": 0})
params = lt.add_torrent_params()
params.ti, params.save_path = lt.torrent_info(torrent), folder
print("GATE", flush=True)
sys.stdin.readline()
session = lt.session(settings)
params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
if role == "seed":
    params.flags |= lt.torrent_flags.seed_mode
handle = session.add_torrent(params)
done = role == "seed"
while True:
    time.sleep(1 if done else 0.03)
    if os.getppid() == 1:
        break
    if not done:
        s = handle.status()
        if s.errc.value():
            sys.exit("libtorrent: " + s.errc.message())
        if s.is_seeding:
            done = True
            print("DONE " + json.dumps({"received": s.total_payload_download}), flush=True)
