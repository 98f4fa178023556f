"""`taxon.v1.ModelAdminService` in and out: protobuf request → order → protobuf response. Decides nothing."""

from typing import Any, Protocol

from google.protobuf.message import Message
from pydantic import ValidationError

from taxon.bundle import traffic
from taxon.bundle.traffic import Bounds, Canary, Shadow
from taxon.service.api.classification import trial_message
from taxon.service.api.guard import Context
from taxon.service.api.pages import page_size, read_token, write_token
from taxon.service.errors import FieldInvalidError, ModelNotFoundError
from taxon.service.models.declaring import Declaring
from taxon.service.models.repository import Repository
from taxon.service.telemetry import calls
from taxon.v1 import classification_service_pb2, model_admin_service_pb2_grpc
from taxon.v1 import model_admin_service_pb2 as pb

SERVICE = "taxon.v1.ModelAdminService"
MAX_REASON_LENGTH = 1000
BOUNDS = {
    "window_call_count": "window",
    "min_call_count": "min_calls",
    "max_error_increase": "max_error_increase",
    "max_nan_increase": "max_nan_increase",
    "max_latency_ratio": "max_latency_ratio",
}
"""Fields of `CanaryBounds`, and what they are in `Bounds`."""


class Control(Protocol):
    """Loads and unloads models."""

    async def load(self, name: str) -> None:
        """Loads what is not served of a model."""
        ...

    async def unload(self, name: str) -> None:
        """Ends the serving of a model."""
        ...


class ModelAdminService(model_admin_service_pb2_grpc.ModelAdminServiceServicer):
    """Orders of operators."""

    def __init__(self, repository: Repository, control: Control, declaring: Declaring) -> None:
        self._repository = repository
        self._control = control
        self._declaring = declaring

    async def LoadModel(self, request: pb.LoadModelRequest, _: Context) -> pb.LoadModelResponse:  # noqa: N802
        """Loads what is not served of a model."""
        name = self._name(request)
        await self._control.load(name)
        calls.found(name, 0)
        return pb.LoadModelResponse(model_versions=map(str, self._repository.versions(request.model_name)))

    async def UnloadModel(self, request: pb.UnloadModelRequest, _: Context) -> pb.UnloadModelResponse:  # noqa: N802
        """Ends the serving of a model."""
        await self._control.unload(self._name(request))
        return pb.UnloadModelResponse()

    async def GetTraffic(self, request: pb.GetTrafficRequest, _: Context) -> pb.GetTrafficResponse:  # noqa: N802
        """Tells which versions answer what."""
        if not self._repository.knows(name := self._name(request), ""):
            raise ModelNotFoundError(name, "")
        return pb.GetTrafficResponse(traffic=self._traffic(name))

    async def SetDefaultVersion(  # noqa: N802
        self, request: pb.SetDefaultVersionRequest, _: Context
    ) -> pb.SetDefaultVersionResponse:
        """Makes a version the default."""
        if len(request.reason) > MAX_REASON_LENGTH:
            raise FieldInvalidError("reason", f"must have at most {MAX_REASON_LENGTH} characters")
        await self._declaring.set_default(self._name(request), request.model_version, request.reason)
        return pb.SetDefaultVersionResponse(traffic=self._traffic(request.model_name))

    async def SetLabel(self, request: pb.SetLabelRequest, _: Context) -> pb.SetLabelResponse:  # noqa: N802
        """Gives a version a label."""
        await self._declaring.set_label(self._name(request), request.label, request.model_version)
        return pb.SetLabelResponse(traffic=self._traffic(request.model_name))

    async def DeleteLabel(self, request: pb.DeleteLabelRequest, _: Context) -> pb.DeleteLabelResponse:  # noqa: N802
        """Takes a label away."""
        await self._declaring.delete_label(self._name(request), request.label)
        return pb.DeleteLabelResponse(traffic=self._traffic(request.model_name))

    async def SetCanary(self, request: pb.SetCanaryRequest, _: Context) -> pb.SetCanaryResponse:  # noqa: N802
        """Lets a version answer a share of the calls."""
        share, bounds = _share(request.share), _bounds(request.bounds)
        await self._declaring.set_trial(
            self._name(request),
            request.model_version,
            lambda version: Canary(version=version, share=share, bounds=bounds, declared=traffic.now()),
        )
        return pb.SetCanaryResponse(traffic=self._traffic(request.model_name))

    async def SetShadow(self, request: pb.SetShadowRequest, _: Context) -> pb.SetShadowResponse:  # noqa: N802
        """Has a version run on copies of calls."""
        share = _share(request.share)
        await self._declaring.set_trial(
            self._name(request), request.model_version, lambda version: Shadow(version=version, share=share)
        )
        return pb.SetShadowResponse(traffic=self._traffic(request.model_name))

    async def ClearTrials(self, request: pb.ClearTrialsRequest, _: Context) -> pb.ClearTrialsResponse:  # noqa: N802
        """Ends trials."""
        known = {classification_service_pb2.TRAFFIC_ROLE_CANARY, classification_service_pb2.TRAFFIC_ROLE_SHADOW}
        roles = set(request.roles) or known
        if roles - known:
            raise FieldInvalidError("roles", "must be canary or shadow")
        await self._declaring.clear(
            self._name(request),
            canary=classification_service_pb2.TRAFFIC_ROLE_CANARY in roles,
            shadow=classification_service_pb2.TRAFFIC_ROLE_SHADOW in roles,
        )
        return pb.ClearTrialsResponse(traffic=self._traffic(request.model_name))

    async def ListQuarantinedVersions(  # noqa: N802
        self, request: pb.ListQuarantinedVersionsRequest, _: Context
    ) -> pb.ListQuarantinedVersionsResponse:
        """Lists what was found and may not be served."""
        size, after = page_size(request.page_size), read_token(request.page_token)
        listed = [state for state in self._repository.refused() if (state.name, state.version) > after]
        page = pb.ListQuarantinedVersionsResponse()
        for state in listed[:size]:
            page.versions.add(model_name=state.name, model_version=str(state.version), reason=state.reason)
        if len(listed) > size:
            page.next_page_token = write_token((listed[size - 1].name, listed[size - 1].version))
        return page

    def _name(self, request: Any) -> str:
        """The model that a call names, which is noted if there is one."""
        name: str = request.model_name
        if not name:
            raise FieldInvalidError("model_name", "must be set")
        if self._repository.knows(name, ""):
            calls.found(name, 0)
        return name

    def _traffic(self, name: str) -> pb.Traffic:
        known = self._repository.known
        declared = known.traffic.get(name, traffic.Traffic())
        message = pb.Traffic(labels={label: str(version) for label, version in declared.labels.items()})
        if (default := self._repository.default_version(name)) is not None:
            message.default_version = str(default)
        for role, trial in (("canary", declared.canary), ("shadow", declared.shadow)):
            if trial is not None:
                told = getattr(message, role)
                told.version = str(trial.version)
                told.trial.CopyFrom(trial_message(self._repository.trial(name, trial.version)))
        if declared.canary is not None:
            for field, ours in BOUNDS.items():
                setattr(message.canary.bounds, field, getattr(declared.canary.bounds, ours))
        return message


def _share(share: float) -> float:
    if not 0.0 < share <= 1.0:  # NaN is outside too
        raise FieldInvalidError("share", "must be above 0 and at most 1")
    return share


def _bounds(message: pb.CanaryBounds) -> Bounds:
    given = {ours: getattr(message, field) for field, ours in BOUNDS.items() if _has(message, field)}
    try:
        return Bounds(**given)
    except ValidationError as error:
        raise FieldInvalidError("bounds", traffic.faults(error)) from None


def _has(message: Message, field: str) -> bool:
    return message.HasField(field)
