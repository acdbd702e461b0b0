"""The bodies of answers: their shape, and that a wrong one is not sent."""

import pytest
from pydantic import ValidationError

from serve.protocol import ErrorDetail, FormAnswer, ImageAnswer, JudgedFile, RefusedFile, RequestError

JUDGED = {
    "label": "defective",
    "score": 0.75,
    "threshold": 0.5,
    "probabilities": {"good": 0.25, "defective": 0.75},
    "part_found": True,
}
IDENTITY = {"id": "7", "model_name": "screw", "model_version": "3", "model_digest": "sha256:" + "a" * 64}


def test_an_answer_to_one_photograph_is_flat_and_says_first_who_and_which_request() -> None:
    answer = ImageAnswer.model_validate(IDENTITY | JUDGED)
    assert list(answer.model_dump()) == [*IDENTITY, *JUDGED]


def test_the_entries_of_a_form_come_back_as_what_they_were() -> None:
    judged = JudgedFile.model_validate({"filename": "a.png"} | JUDGED)
    refused = RefusedFile(filename="b", error=ErrorDetail(status=400, reason="cut off"))
    answer = FormAnswer.model_validate(IDENTITY | {"predictions": (judged, refused)})
    again = FormAnswer.model_validate_json(answer.model_dump_json())
    assert again == answer
    assert [type(entry) for entry in again.predictions] == [JudgedFile, RefusedFile]


@pytest.mark.parametrize(
    "wrong", [{"score": 1.2}, {"model_digest": "a" * 64}, {"model_version": "latest"}, {"surprise": 1}]
)
def test_an_answer_that_breaks_its_contract_is_not_given(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ImageAnswer.model_validate(IDENTITY | JUDGED | wrong)


def test_an_error_carries_its_status_and_refuses_one_that_does_not_exist() -> None:
    error = RequestError(413, "too large", {"Retry-After": "5"})
    assert (error.status, str(error), error.headers) == (413, "too large", {"Retry-After": "5"})
    with pytest.raises(ValueError, match="999"):
        RequestError(999, "?")
