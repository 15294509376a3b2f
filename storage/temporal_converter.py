"""How every process of ours speaks to Temporal: pydantic values, encrypted where the settings say so."""

from __future__ import annotations

import dataclasses

from temporalio import workflow
from temporalio.contrib.pydantic import PydanticPayloadConverter, pydantic_data_converter
from temporalio.converter import CompositePayloadConverter, DataConverter

from integration_service.settings import Settings
from integration_service.storage.vault.key_file import open_keyring
from integration_service.storage.vault.payload_codec import with_payload_encryption

_CONVERTERS = tuple(PydanticPayloadConverter().converters.values())


class SharedPydanticConverter(PydanticPayloadConverter):
    """Temporal's own, with what it has learned of types kept for all of a process: the SDK makes a converter for each
    workflow, which would learn them anew. In the sandbox it is one a workflow: there each workflow imports types of its
    own, and all of those would be kept."""

    def __init__(self) -> None:
        if workflow.unsafe.in_sandbox():
            super().__init__()
        else:
            CompositePayloadConverter.__init__(self, *_CONVERTERS)


SHARED_DATA_CONVERTER = dataclasses.replace(pydantic_data_converter, payload_converter_class=SharedPydanticConverter)


def temporal_converter(settings: Settings, converter: DataConverter | None = None) -> DataConverter:
    """`converter`, by default Temporal's own, that speaks as the settings say; the same object where it does already.

    Raises IntegrationError where encryption is on and its key set is missing or cannot be read.
    """
    spoken = converter or pydantic_data_converter
    if not issubclass(spoken.payload_converter_class, PydanticPayloadConverter):
        spoken = dataclasses.replace(spoken, payload_converter_class=PydanticPayloadConverter)
    source = settings.payload_key_source()
    provider = None if source is None else open_keyring(source)
    return with_payload_encryption(spoken, provider, encrypts=settings.payload_encryption)
