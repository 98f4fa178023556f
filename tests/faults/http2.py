"""HTTP/2 by hand, for clients that no library would be."""

import socket

SETTINGS, HEADERS, DATA, RST_STREAM = 4, 1, 0, 3
END_STREAM, END_HEADERS = 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
INITIAL_WINDOW_SIZE = 4
CANCEL = (8).to_bytes(4)


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def connect(address, window=65_535, tls=None):
    """A connection that has introduced itself.

    Args:
        address: HOST:PORT.
        window: Bytes of an answer that may come before the client has read.
        tls: An `ssl.SSLContext`; None: in the open.
    """
    host, port = address.split(":")
    connection = socket.create_connection((host, int(port)))
    if tls:
        connection = tls.wrap_socket(connection, server_hostname=host)
    settings = INITIAL_WINDOW_SIZE.to_bytes(2) + window.to_bytes(4)
    connection.sendall(PREFACE + frame(SETTINGS, 0, 0, settings))
    return connection


def opening(stream, path="/taxon.v1.ClassificationService/Classify", key=""):
    """Opens a call: literal headers without indexing (RFC 7541, section 6.2.2)."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "test",
        "content-type": "application/grpc",
        "te": "trailers",
        **({"authorization": f"Bearer {key}"} if key else {}),
    }
    block = b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )
    return frame(HEADERS, END_HEADERS, stream, block)


def message(stream, body):
    """The only message of a call."""
    return frame(DATA, END_STREAM, stream, b"\x00" + len(body).to_bytes(4) + body)


def reset(stream):
    return frame(RST_STREAM, 0, stream, CANCEL)
