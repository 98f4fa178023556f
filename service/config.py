"""Every setting of the service: one frozen table, each field a flag of `taxon serve` and a `TAXON_…` variable.

Read once, by `server`. No other module sees it: they are passed the numbers that they need.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, CliApp, CliImplicitFlag, SettingsConfigDict

from taxon.connection import is_loopback
from taxon.service.config_feedback import FeedbackSettings

MOST_SECONDS = 86400.0
"""A day: longer waits are slips, and a million years overflow the clocks below."""
MOST_PORT = 65535
MOST_BYTES = 2**31 - 1
"""gRPC counts a message's bytes in an int."""
MOST_MEMORY = 2**44
Seconds = Annotated[float, Field(gt=0.0, le=MOST_SECONDS)]
Delay = Annotated[float, Field(ge=0.0, le=MOST_SECONDS)]


class ServingSettings(BaseSettings):
    """All but those of feedback."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="TAXON_",
        cli_kebab_case=True,
        cli_prog_name="taxon serve",
        cli_hide_none_type=True,
        cli_avoid_json=True,
        allow_inf_nan=False,
    )

    models: Annotated[Path, Field(description="Folder of bundles: <models>/<name>/<version>/.")] = Path("models")
    # Not `port`: Kubernetes sets TAXON_PORT=tcp://… in every pod beside a Service that is named taxon.
    listen: Annotated[
        str,
        Field(
            pattern=r"^.+:[0-9]+$",
            description="HOST:PORT of the gRPC API. [::] is every IPv4 and IPv6 address, and needs --tls-cert or "
            "--insecure; port 0 takes a free one, see --port-file.",
        ),
    ] = "127.0.0.1:50051"
    tls_cert: Annotated[
        Path | None,
        Field(
            description="PEM file of the server's certificate and those that lead from it to what clients trust: "
            "everything is encrypted, the Prometheus page too. Replaced files are used within two seconds by those who "
            "connect then."
        ),
    ] = None
    tls_key: Annotated[Path | None, Field(description="PEM file of the certificate's private key.")] = None
    tls_client_ca: Annotated[
        Path | None,
        Field(
            description="PEM file of certificates: only clients with a certificate that one of them has signed get a "
            "connection."
        ),
    ] = None
    keys: Annotated[
        Path | None,
        Field(
            description="File of `taxon keys`: only callers that it names are let in, by key or by the identity in "
            "their certificate, each to its groups of methods. Changes are heeded within two seconds."
        ),
    ] = None
    max_caller_calls: Annotated[
        PositiveInt | None,
        Field(
            le=2**20,
            description="With --keys, calls that one caller may have under way at once, unless its entry says "
            "otherwise. No limit if not given.",
        ),
    ] = None
    max_caller_calls_per_second: Annotated[
        float | None,
        Field(
            gt=0,
            le=1e6,
            description="With --keys, calls that one caller may make in a second, on average, unless its entry says "
            "otherwise. No limit if not given.",
        ),
    ] = None
    insecure: Annotated[
        CliImplicitFlag[bool],
        Field(
            description="Listen beyond this machine without TLS: everybody on the way reads pictures, answers and "
            "keys. For networks that encrypt by themselves."
        ),
    ] = False
    port_file: Annotated[Path | None, Field(description="File to write the bound port into, once it is bound.")] = None
    bind_when_ready: Annotated[
        bool,
        Field(
            description="Listen only once every model has been tried: for proxies such as nginx that take an open port "
            "for a server that serves."
        ),
    ] = False
    metrics_port: Annotated[
        NonNegativeInt | None,
        Field(
            le=MOST_PORT,
            description="Port of the Prometheus page; 0 takes a free one. No page if not given. Without --tls-cert or "
            "--insecure only this machine can read it.",
        ),
    ] = None
    admin_port: Annotated[
        NonNegativeInt | None,
        Field(
            le=MOST_PORT,
            description="Port of taxon.v1.ModelAdminService, by which operators load models and say which version "
            "answers what; 0 takes a free one. None if not given.",
        ),
    ] = None
    admin_host: Annotated[
        str,
        Field(
            min_length=1,
            description="Address of the admin port. Without --keys whoever reaches it may use it; beyond this machine "
            "it needs --tls-cert or --insecure, as --listen does.",
        ),
    ] = "127.0.0.1"
    require_signature: Annotated[
        Path | None,
        Field(
            description="PEM file of Ed25519 public keys: only bundles that one of them has signed are served, and no "
            "graphs without a manifest. Needs the extra `signing`."
        ),
    ] = None
    device: Annotated[
        Literal["auto", "cuda", "tensorrt", "cpu"],
        Field(
            description="cuda and tensorrt fail at start if they do not work; auto falls back from CUDA to the CPU and "
            "says so. TensorRT's libraries are not part of the extra gpu."
        ),
    ] = "auto"
    cuda_graphs: Annotated[
        Literal["auto", "on", "off"],
        Field(
            description="With CUDA, launch each batch size of a bundle as one recorded graph: ONNX Runtime would plan "
            "every convolution anew whenever the size changes. auto runs without what cannot be recorded, and the log "
            "says so; on refuses it."
        ),
    ] = "auto"
    engine_cache: Annotated[
        Path | None,
        Field(description="With --device tensorrt, folder for built engines, which take minutes each."),
    ] = None
    variant: Annotated[
        Literal["auto", "fp32", "fp16", "int8"],
        Field(
            description="Precision to serve. auto: of those that a bundle has, the one that is fastest here, timed at "
            "its load; fp32 unless another gains a tenth. A bundle that lacks the one that is named is served as fp32, "
            "and the log says so."
        ),
    ] = "auto"
    workers: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=1, le=1024)],
        Field(description="Processes that run models. auto: one for each granted core, or one for each GPU."),
    ] = "auto"
    decoders: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=0, le=1024)],
        Field(
            description="Processes that only decode. 0: workers decode what they run. auto: 0 on CPUs; on GPUs one for "
            "each granted core but one."
        ),
    ] = "auto"
    fronts: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=1, le=64)],
        Field(
            description="Processes that speak gRPC on the one port. auto: one for every 8 granted cores, on GPUs for "
            "every 4. A client of one connection is on one of them."
        ),
    ] = "auto"
    max_run_seconds: Annotated[
        Seconds,
        Field(description="A worker that takes longer over one batch is taken to hang: it is killed and replaced."),
    ] = 30.0
    max_load_seconds: Annotated[
        Seconds,
        Field(
            description="A worker that takes longer over the proof of one model is killed; twice, and it is refused."
        ),
    ] = 300.0
    threads: Annotated[
        NonNegativeInt, Field(le=1024, description="Threads of one run. 0: each worker's share of the granted cores.")
    ] = 0
    max_batch_size: Annotated[
        NonNegativeInt,
        Field(le=1024, description="Largest batch, rounded down to a power of two. 0: 8 on CPUs, 64 on GPUs."),
    ] = 0
    max_queued_requests: Annotated[
        PositiveInt, Field(le=2**20, description="Inputs in the server at once; the next is refused with QUEUE_FULL.")
    ] = 256
    max_queued_bytes: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=1, le=MOST_MEMORY)],
        Field(
            description="Memory for the inputs in the server, in bytes; large messages are received in turns within as "
            "much again. Must hold the largest message. auto: 256 MiB, or an eighth of the container's memory.",
        ),
    ] = "auto"
    max_decoding_bytes: Annotated[
        Literal["auto"] | Annotated[int, Field(ge=1, le=MOST_MEMORY)],
        Field(
            description="Memory for pictures of more than 2 megapixels while they are decoded, of all processes "
            "together, in bytes: others wait, and one that needs more alone is refused as too large. auto: a third "
            "of the container's memory."
        ),
    ] = "auto"
    max_call_seconds: Annotated[
        Seconds, Field(description="Ceiling of a call's time, whatever deadline its client sets.")
    ] = 10.0
    max_picture_bytes: Annotated[
        PositiveInt, Field(le=MOST_BYTES, description="Largest encoded picture, in bytes.")
    ] = 8 * 2**20
    max_picture_pixels: Annotated[
        PositiveInt, Field(le=2**31 - 1, description="Largest decoded picture, in pixels.")
    ] = 50_000_000
    max_message_bytes: Annotated[
        PositiveInt,
        Field(
            le=MOST_BYTES,
            description="Largest gRPC message, in bytes. Must exceed --max-picture-bytes, so that an oversize picture "
            "gets an explanation; BatchClassify needs room for all its pictures.",
        ),
    ] = 64 * 2**20
    max_connections: Annotated[
        PositiveInt,
        Field(
            le=2**20,
            description="Connections to one front; further ones are closed at once. At most half of the descriptors "
            "that the process may have (ulimit -n).",
        ),
    ] = 10_000
    max_concurrent_streams: Annotated[
        PositiveInt,
        Field(
            le=2**20,
            description="Calls under way on one connection; a client's further calls wait on its side. Should be no "
            "less than --max-queued-requests where a proxy brings all calls by one connection.",
        ),
    ] = 256
    max_connection_age_seconds: Annotated[
        Delay,
        Field(
            description="So old, a connection is led away: its calls are finished, the next ones use a new one. So "
            "clients and balancers find new replicas, and a server that stops loses no call. 0: never; then a stop may "
            "cancel calls of clients that do not watch its health.",
        ),
    ] = 20.0
    max_connection_idle_seconds: Annotated[
        Delay,
        Field(description="A connection without a call for so long is closed. 0: never."),
    ] = 300.0
    min_ping_seconds: Annotated[
        Delay,
        Field(
            description="Clients and balancers may ping their connections this often, also idle ones; who pings much "
            "more often is disconnected (GOAWAY too_many_pings). 0: at any pace.",
        ),
    ] = 5.0
    keepalive_seconds: Annotated[
        Seconds,
        Field(
            ge=1,
            description="A connection on which nothing was heard for so long is pinged, and closed if there is no "
            "answer for 20 s: balancers on the way keep it, and clients that are gone free it.",
        ),
    ] = 60.0
    drain_delay_seconds: Annotated[
        Delay,
        Field(description="After SIGTERM, time to go on serving as NOT_SERVING until balancers have noticed."),
    ] = 0.0
    drain_grace_seconds: Annotated[
        Delay,
        Field(description="After the drain delay, time for clients to be led away and for calls in flight to finish."),
    ] = 30.0
    watch_seconds: Annotated[
        Delay,
        Field(
            description="How often the folder of models is looked at: new versions are loaded and proven beside what "
            "is served, refused ones tried again when their files have changed, deleted ones leave. 0, or "
            "--model-control explicit: only labels are followed.",
        ),
    ] = 2.0
    model_control: Annotated[
        Literal["none", "explicit"],
        Field(description="explicit: any caller may load and unload models by the Open Inference Protocol."),
    ] = "none"
    reflection: Annotated[bool, Field(description="Serve gRPC reflection, v1 and v1alpha.")] = True
    log_format: Annotated[Literal["json", "console"], Field(description="Form of the log on standard error.")] = "json"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="Least severe events in the log.")
    ] = "info"
    triton_metrics: Annotated[
        CliImplicitFlag[bool],
        Field(description="Show the figures of ModelStatistics as Triton names them (nv_inference_…) too."),
    ] = False
    access_log_sample: Annotated[
        float,
        Field(
            ge=0.0,
            le=1.0,
            description="Share of the answered calls that the log has a line for. Calls that were refused or failed "
            "have one each; of both kinds no more than 50 a second and front.",
        ),
    ] = 0.001
    otlp_endpoint: Annotated[
        str | None,
        Field(
            pattern=r"^https?://.+",
            description="URL of an OpenTelemetry collector that takes OTLP over HTTP, without /v1/traces: sampled "
            "calls are traced. Needs the extra `otel`. No traces if not given.",
        ),
    ] = None
    otlp_sample: Annotated[
        float,
        Field(
            ge=0.0,
            le=1.0,
            description="Share of the calls without a traceparent that are traced; with one, its caller decides.",
        ),
    ] = 0.001

    @model_validator(mode="after")
    def _holds_a_message(self) -> Self:
        if self.max_queued_bytes != "auto" and self.max_queued_bytes < self.max_message_bytes:
            raise ValueError(
                f"--max-queued-bytes {self.max_queued_bytes} must hold a message of --max-message-bytes "
                f"{self.max_message_bytes}"
            )
        return self

    @model_validator(mode="after")
    def _says_aloud_what_is_not_encrypted(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("--tls-cert and --tls-key go together")
        if self.tls_client_ca and not self.tls_cert:
            raise ValueError("--tls-client-ca needs --tls-cert and --tls-key")
        if not self.keys and (self.max_caller_calls or self.max_caller_calls_per_second):
            raise ValueError(
                "--max-caller-calls and --max-caller-calls-per-second need --keys: else nobody knows callers"
            )
        addresses = {"--listen": self.listen}
        if self.admin_port is not None:
            addresses["--admin-host"] = f"{self.admin_host}:{self.admin_port}"
        for flag, address in addresses.items():
            if not (self.tls_cert or self.insecure or is_loopback(address)):
                raise ValueError(
                    f"{flag} {address} can be reached from other machines: give --tls-cert and --tls-key, or say "
                    "--insecure if nobody can listen in on the way; 127.0.0.1 stays on this machine"
                )
        return self

    @field_validator("listen")
    @classmethod
    def _has_a_port(cls, address: str) -> str:
        if int(address.rpartition(":")[2]) > MOST_PORT:
            raise ValueError(f"{address!r} has no port from 0 to {MOST_PORT}")
        return address

    @field_validator("metrics_port", "admin_port", mode="before")
    @classmethod
    def _not_a_service_link(cls, port: Any) -> Any:
        if isinstance(port, str) and "://" in port:
            raise ValueError(
                f"{port!r} is what Kubernetes sets in pods beside a Service of this name: "
                "set enableServiceLinks: false in the pod, or name the port as a flag"
            )
        return port


class Settings(FeedbackSettings, ServingSettings):  # in this order --help begins with --models
    """Serves the bundles of a folder over gRPC."""


def parse(argv: list[str]) -> Settings:
    """Reads flags, then variables, then defaults.

    Raises:
        SystemExit: A flag is unknown, a value cannot be read, or help was asked for; argparse has printed why.
        pydantic.ValidationError: A value is out of range.
    """
    return CliApp.run(Settings, cli_args=argv)
