"""mosec: two workers, batches of up to eight.

MODEL=model.onnx python mosec_server.py --port PORT
"""

import os

from mosec import Server, Worker
from work import decode, open_session, run


class Classify(Worker):
    def __init__(self) -> None:
        super().__init__()
        self.session = open_session()

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: list[bytes]) -> list[dict[str, int]]:
        return [{"class": int(best)} for best in run(self.session, [decode(encoded) for encoded in data])]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Classify, num=len(os.sched_getaffinity(0)), max_batch_size=8, max_wait_time=1, timeout=20)
    server.run()
