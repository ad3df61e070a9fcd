"""A camera with RTSP on loopback, by GStreamer's server; run by the system's Python, which has its bindings.

Usage: python3 rtsp_server.py WIDTH HEIGHT FPS, raw RGB frames on standard input. Prints its port once it listens.
Every frame that comes is encoded (H.264, no B frames) and sent to every client; when none comes, none is sent.
"""

import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

LAUNCH = """( appsrc name=frames is-live=true format=time do-timestamp=true max-buffers=4 leaky-type=downstream
  caps=video/x-raw,format=RGB,width={width},height={height},framerate={fps}/1
  ! videoconvert ! openh264enc complexity=low gop-size={fps} bitrate=4000000
  ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=1 )"""


def main() -> None:
    width, height, fps = map(int, sys.argv[1:4])
    Gst.init(None)
    lock = threading.Lock()
    sources: list[Gst.Element] = []

    def configure(_: GstRtspServer.RTSPMediaFactory, media: GstRtspServer.RTSPMedia) -> None:
        source = media.get_element().get_by_name("frames")
        with lock:
            sources.append(source)

        def gone(*_: object) -> None:
            with lock:
                if source in sources:
                    sources.remove(source)

        media.connect("unprepared", gone)

    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(LAUNCH.format(width=width, height=height, fps=fps))
    factory.set_shared(True)
    factory.connect("media-configure", configure)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    server.get_mount_points().add_factory("/camera", factory)
    server.attach(None)
    sys.stdout.write(f"{server.get_bound_port()}\n")
    sys.stdout.flush()

    loop = GLib.MainLoop()

    def feed() -> None:
        size = width * height * 3
        while len(frame := sys.stdin.buffer.read(size)) == size:
            with lock:
                for source in sources:
                    source.emit("push-buffer", Gst.Buffer.new_wrapped(frame))
        loop.quit()

    threading.Thread(target=feed, daemon=True).start()
    loop.run()


if __name__ == "__main__":
    main()
