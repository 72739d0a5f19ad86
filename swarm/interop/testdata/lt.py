# libtorrent as a plain client: lt.py TORRENT DIR ADDRESS TRACKER|seed
#
# Prints "DONE" when it holds everything, then goes on as a source until it is
# killed. Nothing but the tracker tells it of peers, and nothing is encrypted.
import os, sys, time
import libtorrent as lt

torrent, folder, address, tracker = sys.argv[1:]
session = lt.session({
    "listen_interfaces": address + ":6881",
    "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
    "enable_outgoing_utp": False, "enable_incoming_utp": False,
    "out_enc_policy": int(lt.enc_policy.pe_disabled), "in_enc_policy": int(lt.enc_policy.pe_disabled),
    "min_reconnect_time": 2, "alert_mask": lt.alert.category_t.error_notification,
})
params = lt.add_torrent_params()
params.ti, params.save_path = lt.torrent_info(torrent), folder
params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
if tracker == "seed":
    params.flags |= lt.torrent_flags.seed_mode
else:
    params.trackers = [tracker]
handle = session.add_torrent(params)
done = False
while os.getppid() != 1:
    for alert in session.pop_alerts():
        print(alert, file=sys.stderr, flush=True)
    status = handle.status()
    if status.errc.value():
        sys.exit("libtorrent: " + status.errc.message())
    if status.is_seeding and not done:
        handle.flush_cache()
        time.sleep(1)  # the cache goes to the file in the background
        print("DONE", flush=True)
        done = True
    time.sleep(0.1)
