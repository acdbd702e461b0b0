"""A serve-config.yaml is read strictly, and a promotion edits the lines of its model only."""

import difflib
import string
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from gitops.contracts.serving import Canary, FleetConfig, ServedModel, Shadow, Trial, UserConfig
from gitops.environment import BUILDERS, GRPC_SERVICER, MONITOR, Environment, promote
from gitops.errors import ContractError
from gitops.seed import seed_environment
from gitops.serve_keys import KNOWN_KEYS

pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`")  # by Ray, when imported

LOCAL = seed_environment("screw", "local")
MODEL = ServedModel(name="screw", version="3", uri="file:///a/b", sha256="ab" * 32)
CANDIDATE = ServedModel(name="screw", version="4", uri="s3://b/c", sha256="cd" * 32)
CANARY, SHADOW = Canary(percent=10, model=CANDIDATE), Shadow(model=CANDIDATE)

BLOCK = """\
applications:
  - name: screw
    import_path: other:build
    deployments:
    - name: A
      user_config:
        model: null
"""
TWO = """\
applications:
  - name: left # the first
    route_prefix: /left
    import_path: other:build
    deployments: [{name: A, user_config: {model: null, shown: "yes"}}]
  - {name: 'right', route_prefix: /right, import_path: other:build, deployments: [{name: B, user_config: {model: ~}}]}
  - name: router
    import_path: other:route
"""


def test_the_known_keys_are_rays() -> None:
    from ray.serve import schema
    from ray.serve.config import AutoscalingConfig

    models: dict[str, type[BaseModel]] = {
        "": schema.ServeDeploySchema,
        "http_options": schema.HTTPOptionsSchema,
        "grpc_options": schema.gRPCOptionsSchema,
        "applications": schema.ServeApplicationSchema,
        "deployments": schema.DeploymentSchema,
        "autoscaling_config": AutoscalingConfig,
        "ray_actor_options": schema.RayActorOptionsSchema,
    }
    assert {section: set(keys) for section, keys in KNOWN_KEYS.items()} == {
        section: set(model.model_fields) for section, model in models.items()
    }


def test_the_named_servicer_can_be_imported() -> None:
    from ray._common.utils import import_attr

    assert callable(import_attr(GRPC_SERVICER))
    for name in ("staging", "production"):
        options = Environment.parse(seed_environment("screw", name), name).config["grpc_options"]
        assert options["grpc_servicer_functions"] == [GRPC_SERVICER]
    assert "grpc_options" not in Environment.parse(LOCAL, "local").config


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            "{grpc_servicer_functions: [serve.open_inference_pb2_grpc.add]}",
            "unknown 'serve.open_.*did you mean 'serve.op",
        ),
        ("{grpc_servicer_functions: [5]}", "unknown 5"),
        ("{grpc_servicer_functions: serve.x}", "a list as grpc_servicer_functions"),
        ("{port: nine}", "a number as port"),
        ("{prt: 9}", "grpc_options: unknown key 'prt'"),
    ],
)
def test_wrong_grpc_options_are_refused(options: str, reason: str) -> None:
    with pytest.raises(ContractError, match=reason):
        Environment.parse(f"grpc_options: {options}\n{LOCAL}", "x")


def test_other_people_s_servicers_are_theirs() -> None:
    Environment.parse(f"grpc_options: {{grpc_servicer_functions: [other.add, {GRPC_SERVICER}]}}\n{LOCAL}", "x")


MONITORED = LOCAL.replace("windows: null", "windows: /windows").replace(
    "      - name: Classifier", "      - {name: Monitor, ray_actor_options: {num_cpus: 1}}\n      - name: Classifier"
)


def test_a_monitor_is_configured_only_where_there_is_one() -> None:
    from serve.app import build

    found = Environment.parse(MONITORED, "x").applications["screw"]
    assert (found.deployment, found.wanted) == ("Classifier", UserConfig())
    assert promote(MONITORED, None, MODEL) != MONITORED
    made: Any = build(found.config["args"])._bound_deployment
    assert (made.name, MONITOR) == BUILDERS["serve.app:build"].deployments
    assert made.init_args[1]._bound_deployment.name == MONITOR
    assert len(build({})._bound_deployment.init_args) == 1
    with pytest.raises(ContractError, match=r"made only where `args\.windows` names"):
        Environment.parse(MONITORED.replace("windows: /windows", "windows: null"), "x")
    with pytest.raises(ContractError, match="Monitor: it takes no user_config"):
        Environment.parse(MONITORED.replace("{num_cpus: 1}", "{num_cpus: 1}, user_config: {model: null}"), "x")


@pytest.mark.parametrize(
    ("builder", "arguments", "reason"),
    [
        ("serve.app:build", "{treads: 4}", r"the args of application screw is .*\n  treads: unknown key; .*'threads'"),
        ("serve.app:build", "{threads: 0}", "threads: .*greater than or equal to 1"),
        ("serve.app:build", "{feedback: here}", "feedback: "),
        ("serve.app:build", "{journal: /srv/state}", "journal: .*/srv/state is no journal"),
        ("serve.app:build", "{max_models: 4}", "max_models: unknown key"),
        ("serve.app:build", "[4]", "application screw"),
        ("serve.fleet:build", "{max_models: none}", "max_models: "),
        ("serve.fleet:build", "{windows: /windows}", "windows: .*a fleet has no monitor: leave it out"),
    ],
)
def test_arguments_that_the_application_would_refuse(builder: str, arguments: str, reason: str) -> None:
    """Else it would be Serve that fails on them, after the merge."""
    text = f"applications: [{{name: screw, import_path: {builder}, args: {arguments}}}]\n"
    with pytest.raises(ContractError, match=f"(?s){reason}"):
        Environment.parse(text, "x")


def test_other_people_s_arguments_are_theirs() -> None:
    Environment.parse("applications: [{name: screw, import_path: other.app:build, args: {treads: 4}}]\n", "x")


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "wrong", "reason"),
    [
        ("applications:", "aplications:", "the top level: unknown key 'aplications'; did you mean 'applications'?"),
        ("  port: 8000", "  prt: 8000", "http_options: unknown key 'prt'; did you mean 'port'?"),
        (
            "route_prefix: /",
            "route_prefx: /",
            "application screw: unknown key 'route_prefx'; did you mean 'route_prefix'?",
        ),
        ("max_ongoing_requests", "max_ongoing_request", "did you mean 'max_ongoing_requests'?"),
        (
            "upscale_delay_s",
            "upscale_delay",
            "Classifier, autoscaling_config: unknown key 'upscale_delay'; did you mean",
        ),
        ("num_cpus: 0.25", "cpus: 0.25", "ray_actor_options: unknown key 'cpus'; did you mean 'num_cpus'?"),
        ("model: null", "modle: null", "user_config: unknown key 'modle'; did you mean 'model'?"),
        ("name: Classifier", "name: Classifer", "makes no deployment 'Classifer'; did you mean 'Classifier'?"),
        ("import_path: serve.app:build", "runtime_env: {}", "application screw needs an `import_path`"),
        ("  - name: screw", "  - route_prefix: /", "is not YAML"),  # the key is there twice then
        ("- name: Classifier", "- num_replicas: 1", "an entry without `name` stands among the deployments"),
        ("model: null", "model: {name: screw}", "the user_config of application screw"),
        ("model: null", "model: screw", "the user_config of application screw"),
        ("port: 8000", "port: eight", "http_options wants a text as host and a number as port"),
        ("port: 8000", "port: 8000\n  port: 8001", "is not YAML"),
        ("threads: 1", "threads: .inf", "a value that Ray Serve's REST API cannot take"),
        ("threads: 1", "threads: 2026-01-01", "a value that Ray Serve's REST API cannot take"),
        (
            "ray_actor_options:\n",
            "ray_actor_options: 5\n        logging_config:\n",
            "ray_actor_options must be a mapping",
        ),
        ("user_config:\n", "user_config: 5\n        logging_config:\n", "user_config must be a mapping"),
        ("applications:\n", "applications: 5\ntracing_config:\n", "needs `applications`, a list of mappings"),
    ],
)
def test_a_file_that_ray_serve_would_misread_is_refused(right: str, wrong: str, reason: str) -> None:
    assert right in LOCAL
    with pytest.raises(ContractError) as error:
        Environment.parse(LOCAL.replace(right, wrong), "local.yaml")
    assert "local.yaml" in str(error.value)
    assert reason in str(error.value)


@pytest.mark.parametrize("text", ["", "words", "[1, 2]", "a: [", "\x00", "applications: *nowhere"])
def test_what_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(ContractError, match=r"x\.yaml is not"):
        Environment.parse(text, "x.yaml")


def test_names_and_routes_stand_there_once() -> None:
    with pytest.raises(ContractError, match="application 'left' stands there twice"):
        Environment.parse(TWO.replace("'right'", "left"), "two")
    with pytest.raises(ContractError, match="route_prefix '/left' stands there twice"):
        Environment.parse(TWO.replace("/right", "/left"), "two")
    doubled = TWO.replace("[{name: A,", "[{name: A}, {name: A,")
    with pytest.raises(ContractError, match="deployment in application left 'A' stands there twice"):
        Environment.parse(doubled, "two")
    with pytest.raises(ContractError, match=r"`user_config\.model` in several deployments"):
        Environment.parse(TWO.replace("[{name: A,", "[{name: C, user_config: {model: null}}, {name: A,"), "two")


def test_several_applications_are_seen_by_name() -> None:
    two = Environment.parse(promote(TWO, "right", MODEL), "two")
    assert two.served() == {"left": None, "right": MODEL, "router": None}
    assert [app.deployment for app in two.applications.values()] == ["A", "B", None]
    assert two.applications["router"].route_prefix == "/"
    assert two.http_port == 8000


def test_settings_are_all_but_the_model() -> None:
    before, after = Environment.parse(LOCAL, "a"), Environment.parse(promote(LOCAL, None, MODEL), "b")
    assert before.settings() == after.settings()
    assert before.settings() != Environment.parse(LOCAL.replace("threads: 1", "threads: 3"), "c").settings()
    # Without the key the deployment takes no model any more, which is no promotion.
    assert before.settings() != Environment.parse(LOCAL.replace("model: null", "{}"), "d").settings()
    assert after.served() == {"screw": MODEL}, "taking the settings leaves the configuration as it is"


# --- editing ----------------------------------------------------------------------------------------------------------


def test_the_first_promotion_writes_the_model_below_its_key() -> None:
    assert _changed_lines(LOCAL, promote(LOCAL, None, MODEL)) == [
        "-          model: null",
        "+          model:",
        "+            name: screw",
        '+            version: "3"',
        "+            uri: file:///a/b",
        f"+            sha256: {MODEL.sha256}",
    ]


def test_the_next_promotion_changes_values_and_keeps_comments() -> None:
    first = promote(LOCAL, None, MODEL).replace('version: "3"', "version: '3' # agreed on Monday")
    second = promote(first, None, MODEL.model_copy(update={"version": "12", "uri": "s3://b/c"}))
    assert _changed_lines(first, second) == [
        "-            version: '3' # agreed on Monday",
        "-            uri: file:///a/b",
        '+            version: "12" # agreed on Monday',
        "+            uri: s3://b/c",
    ]


def test_promoting_the_same_model_again_changes_nothing() -> None:
    promoted = promote(LOCAL, None, MODEL)
    assert promote(promoted, "screw", MODEL) == promoted


@pytest.mark.parametrize(
    "written", ["model:", "model: ~", "model: null # none yet", "model:   # none yet", '"model": null']
)
@pytest.mark.parametrize("end", ["", "\n", "\n\n# the end\n", "\n          # below\n"])
def test_every_way_to_write_no_model_can_be_edited(written: str, end: str) -> None:
    text = LOCAL.rstrip().replace("model: null", written) + end
    edited = promote(text, None, MODEL)
    assert Environment.parse(edited, "x").served() == {"screw": MODEL}
    assert ("# none yet" in edited) == ("# none yet" in written)
    assert edited.endswith(end)


def test_flow_style_is_edited_where_it_stands() -> None:
    edited = promote(TWO, "left", MODEL)
    inline = f'{{name: screw, version: "3", uri: file:///a/b, sha256: {MODEL.sha256}}}'
    assert edited == TWO.replace("model: null", f"model: {inline}")
    assert Environment.parse(promote(edited, "left", MODEL.model_copy(update={"version": "4"})), "x")


@pytest.mark.parametrize(
    ("application", "model", "reason"),
    [
        (None, MODEL, r"not one application|no application 'screw'"),
        (
            "router",
            MODEL,
            "no application 'router' that serves a model; name one of those that serve a model \\(left, right\\)",
        ),
        ("absent", MODEL, "no application 'absent'"),
    ],
)
def test_the_application_must_be_clear(application: str | None, model: ServedModel, reason: str) -> None:
    with pytest.raises(ContractError, match=reason):
        promote(TWO, application, model)


def test_the_application_of_the_models_name_is_meant() -> None:
    edited = promote(TWO, None, MODEL.model_copy(update={"name": "right"}))
    assert [name for name, model in Environment.parse(edited, "x").served().items() if model] == ["right"]


def test_a_model_that_is_shared_by_an_alias_is_not_edited() -> None:
    text = promote(TWO, "left", MODEL).replace("model: {", "model: &shared {").replace("model: ~", "model: *shared")
    with pytest.raises(ContractError, match="cannot edit the model of left alone"):
        promote(text, "left", MODEL.model_copy(update={"version": "4"}))
    merged = TWO.replace("user_config: {model: ~}", "user_config: {<<: {model: ~}}")
    with pytest.raises(ContractError, match="'model' must stand there"):
        promote(merged, "right", MODEL)


@given(
    uri=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40),
    sha256=st.text("0123456789e", min_size=64, max_size=64)
    | st.text(string.hexdigits.lower(), min_size=64, max_size=64),
    version=st.integers(1, 999_999_999).map(str),
    text=st.sampled_from([BLOCK, promote(BLOCK, None, MODEL), TWO, promote(TWO, "left", MODEL)]),
)
@settings(max_examples=50, deadline=None)
def test_any_value_is_read_back_as_it_was_written(uri: str, sha256: str, version: str, text: str) -> None:
    model = ServedModel.model_construct(name="screw", version=version, uri=uri, sha256=sha256)
    application = "left" if "name: left" in text else "screw"
    assert Environment.parse(promote(text, application, model), "x").served()[application] == model


# --- trials -----------------------------------------------------------------------------------------------------------

PROMOTED = promote(LOCAL, None, MODEL)


def test_a_canary_is_a_few_readable_lines_below_the_model() -> None:
    edited = promote(PROMOTED, None, MODEL, trial=CANARY)
    assert _changed_lines(PROMOTED, edited) == [
        "+          canary:",
        "+            percent: 10",
        "+            model:",
        "+              name: screw",
        '+              version: "4"',
        "+              uri: s3://b/c",
        f"+              sha256: {CANDIDATE.sha256}",
    ]
    assert Environment.parse(edited, "x").wanted() == {"screw": UserConfig(model=MODEL, canary=CANARY)}
    assert Environment.parse(edited, "x").served() == {"screw": MODEL}
    assert Environment.parse(edited, "x").settings() == Environment.parse(LOCAL, "x").settings()


def test_another_share_changes_its_line_only() -> None:
    text = promote(PROMOTED, None, MODEL, trial=CANARY).replace('version: "4"', "version: '4'  # from line 7")
    text = text.replace("percent: 10", "percent: 10 # more on Friday")
    edited = promote(text, None, MODEL, trial=CANARY.model_copy(update={"percent": 25}))
    changed = ["-            percent: 10 # more on Friday", "+            percent: 25 # more on Friday"]
    assert _changed_lines(text, edited) == changed


@pytest.mark.parametrize("end", ["", "\n", "\n\n# the end\n", "\n          # below\n", "  # behind\n# the end"])
@pytest.mark.parametrize("trial", [CANARY, SHADOW])
def test_what_is_ended_leaves_no_trace(end: str, trial: Trial) -> None:
    text = PROMOTED.rstrip() + end
    tried = promote(text, None, MODEL, trial=trial)
    assert tried != text
    assert promote(tried, None, MODEL) == text
    assert promote(tried, None, CANDIDATE) == promote(text, None, CANDIDATE), "finished, it is a promotion"


def test_a_shadow_becomes_a_canary_and_the_other_way() -> None:
    shadow, canary = (promote(PROMOTED, None, MODEL, trial=trial) for trial in (SHADOW, CANARY))
    assert promote(shadow, None, MODEL, trial=CANARY) == canary
    assert promote(canary, None, MODEL, trial=SHADOW) == shadow


@pytest.mark.parametrize("written", ["canary: null", "canary: ~ # none now", "canary:"])
def test_a_canary_that_is_null_is_written_where_it_stands(written: str) -> None:
    text = PROMOTED.replace("          model:", f"          {written}\n          model:")
    edited = promote(text, None, MODEL, trial=CANARY)
    assert Environment.parse(edited, "x").wanted()["screw"].trial == CANARY
    assert ("# none now" in edited) == ("# none now" in written)
    assert edited.index("canary:") < edited.index("          model:")
    assert promote(edited, None, MODEL) == PROMOTED


def test_a_trial_in_flow_style_comes_and_goes_where_it_stands() -> None:
    text = promote(TWO, "left", MODEL)
    tried = promote(text, "left", MODEL, trial=CANARY)
    inline = f'{{name: screw, version: "4", uri: s3://b/c, sha256: {CANDIDATE.sha256}}}'
    assert tried == text.replace('}, shown: "yes"', f'}}, canary: {{percent: 10, model: {inline}}}, shown: "yes"')
    assert promote(tried, "left", MODEL) == text
    first = text.replace("{model: {name", f"{{shadow: {{model: {inline}}}, model: {{name")
    assert Environment.parse(first, "x").wanted()["left"].trial == SHADOW
    assert promote(first, "left", MODEL) == text


def test_lines_of_a_trial_that_come_from_elsewhere_are_not_edited() -> None:
    merged = promote(BLOCK, None, MODEL, trial=CANARY).replace("canary:\n", "canary: &tried\n")
    merged = merged.replace("import_path", "args: {tried: *tried}\n    import_path")
    with pytest.raises(ContractError, match="is not"):  # an alias stands behind its anchor
        promote(merged, None, MODEL)
    shared = promote(BLOCK, None, MODEL).replace("        model:", "        model: &it").rstrip()
    shared += "\n        shadow: {model: *it}\n"
    with pytest.raises(ContractError, match="which is that of `model` itself"):
        promote(shared, None, MODEL)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("canary: {model: null}", "canary.percent: Field required"),
        ("canary: {percent: 0, model: M}", "canary.percent: Input should be greater than or equal to 1"),
        ("canary: {percent: 100, model: M}", "canary.percent: Input should be less than or equal to 99"),
        ("canary: {percent: 5, modle: M}", "canary.modle: unknown key; did you mean 'model'?"),
        ("shadow: {percent: 5, model: M}", "shadow.percent: unknown key"),
        ("canary: {percent: 5, model: M}\n          shadow: {model: M}", "`canary` and `shadow` stand there together"),
        ("shadow: {model: N}", "`shadow` is a model of bolt, `model` one of screw"),
        ("cnary: {percent: 5, model: M}", "unknown key 'cnary'; did you mean 'canary'?"),
    ],
)
def test_a_trial_that_cannot_be_is_refused(lines: str, reason: str) -> None:
    for sign, name in (("M", "screw"), ("N", "bolt")):
        written = f'{{name: {name}, version: "4", uri: s3://b, sha256: {CANDIDATE.sha256}}}'
        lines = lines.replace(f"model: {sign}", f"model: {written}").replace(f"modle: {sign}", f"modle: {written}")
    with pytest.raises(ContractError) as error:
        Environment.parse(f"{PROMOTED.rstrip()}\n          {lines}\n", "local.yaml")
    assert "local.yaml" in str(error.value)
    assert reason in str(error.value)


def test_a_trial_needs_a_model_beside_it() -> None:
    alone = promote(PROMOTED, None, MODEL, trial=SHADOW)
    start, end = alone.index("          model:"), alone.index("          shadow:")
    with pytest.raises(ContractError, match="`shadow` needs a `model` beside which it is tried"):
        Environment.parse(alone[:start] + alone[end:], "x")
    with pytest.raises(ContractError, match="`shadow` needs a `model`"):
        Environment.parse(f"{alone[:start]}          model: null\n{alone[end:]}", "x")


@example(uri=":", percent=1, text=promote(BLOCK, None, MODEL), first=None)  # a text in flow style only
@given(
    uri=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40),
    percent=st.integers(1, 99) | st.none(),
    text=st.sampled_from([promote(BLOCK, None, MODEL), promote(TWO, "left", MODEL), PROMOTED]),
    first=st.sampled_from([None, CANARY, SHADOW]),
)
@settings(max_examples=50, deadline=None)
def test_any_trial_is_read_back_and_can_be_ended(uri: str, percent: int | None, text: str, first: Trial | None) -> None:
    candidate = ServedModel.model_construct(name="screw", version="4", uri=uri, sha256=CANDIDATE.sha256)
    trial = Canary(percent=percent, model=candidate) if percent else Shadow(model=candidate)
    application = "left" if "name: left" in text else "screw"
    begun = promote(text, application, MODEL, trial=first)
    tried = promote(begun, application, MODEL, trial=trial)
    assert Environment.parse(tried, "x").wanted()[application] == UserConfig.of(MODEL, trial)
    assert promote(tried, application, MODEL) == text


# --- fleets -----------------------------------------------------------------------------------------------------------

FLEET = """\
applications:
  - name: parts
    route_prefix: /parts
    import_path: serve.fleet:build
    deployments:
      - name: Fleet
        user_config:
          models: null # none yet
"""
NUT = MODEL.model_copy(update={"name": "nut"})


def test_our_fleet_is_checked_like_our_application() -> None:
    for wrong, reason in {
        FLEET.replace("models:", "model:"): "unknown key 'model'; did you mean 'models'?",
        FLEET.replace("- name: Fleet", "- name: Classifier"): "makes no deployment 'Classifier'",
        FLEET.replace("models: null", "models: {nut: {name: nut}}"): "models.nut.version: Field required",
        promote(FLEET, None, NUT).replace("            nut:", "            bolt:"): "`models.bolt` is a model of nut",
    }.items():
        with pytest.raises(ContractError) as error:
            Environment.parse(wrong, "fleet.yaml")
        assert reason in str(error.value)


def test_a_promotion_adds_a_model_to_a_fleet_and_changes_it_there() -> None:
    first = promote(FLEET, None, MODEL)
    assert _changed_lines(FLEET, first) == [
        "-          models: null # none yet",
        "+          models: # none yet",
        "+            screw:",
        "+              name: screw",
        '+              version: "3"',
        "+              uri: file:///a/b",
        f"+              sha256: {MODEL.sha256}",
    ]
    second = promote(first, None, NUT)
    assert _changed_lines(first, second) == [
        "+            nut:",
        "+              name: nut",
        '+              version: "3"',
        "+              uri: file:///a/b",
        f"+              sha256: {NUT.sha256}",
    ]
    third = promote(second, None, MODEL.model_copy(update={"version": "12"}))
    assert _changed_lines(second, third) == ['-              version: "3"', '+              version: "12"']
    environment = Environment.parse(third, "x")
    assert list(environment.served()) == ["parts/screw", "parts/nut"]
    assert environment.settings() == Environment.parse(FLEET, "x").settings()
    assert environment.url(environment.find(None, "nut", "x")) == "http://127.0.0.1:8000/parts/models/nut"
    assert promote(third, "parts", NUT) == third


@pytest.mark.parametrize("written", ["models:", "models: {}", "models: ~"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n# the end\n"])
def test_every_way_to_write_no_models_can_be_edited(written: str, end: str) -> None:
    text = FLEET.rstrip().replace("models: null # none yet", written) + end
    edited = promote(promote(text, None, MODEL), None, NUT)
    assert Environment.parse(edited, "x").served() == {"parts/screw": MODEL, "parts/nut": NUT}
    assert edited.endswith(end)
    flow = text.replace(f"\n          {written}", f" {{{written} }}")
    edited = promote(promote(flow, None, MODEL), None, NUT)
    assert Environment.parse(edited, "x").served() == {"parts/screw": MODEL, "parts/nut": NUT}


def test_a_model_goes_to_its_application_then_to_the_fleet_that_has_it() -> None:
    both = TWO.replace("name: router", "name: router2").rstrip() + "\n" + FLEET.partition("\n")[2]
    with pytest.raises(ContractError, match="name one of those that serve a model"):
        promote(both, None, NUT)
    having = promote(both, "parts", NUT)
    assert Environment.parse(having, "x").find(None, "nut", "x").name == "parts/nut"
    assert Environment.parse(having, "x").find(None, "left", "x").name == "left"
    with pytest.raises(ContractError, match="parts is a fleet of 1 models: say which of them is meant"):
        Environment.parse(having, "x").find("parts", None, "x")


def test_a_fleet_tries_nothing() -> None:
    text = promote(FLEET, None, MODEL)
    with pytest.raises(ContractError, match="parts is a fleet, whose models are promoted at once"):
        promote(text, None, MODEL, trial=CANARY)
    # What other people's builders call `models` is theirs.
    assert Environment.parse(FLEET.replace("serve.fleet", "other"), "x").served() == {"parts": None}
    assert str(FleetConfig(models={"screw": MODEL})) == "a fleet of 1 models"


def _changed_lines(before: str, after: str) -> list[str]:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return [line for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")]


@pytest.mark.parametrize("prefix", ["/", "/a", "/a/b", "null"])
def test_a_route_prefix_is_taken_as_ray_serve_takes_it(prefix: str) -> None:
    text = seed_environment("screw", "production").replace("route_prefix: /\n", f"route_prefix: {prefix}\n")
    assert Environment.parse(text, "a.yaml").applications["screw"].route_prefix == (
        None if prefix == "null" else prefix
    )


@pytest.mark.parametrize("prefix", ["/a/", "screw", '"/x{y}"', '""', "//", "5"])
def test_a_route_prefix_that_ray_serve_would_refuse_when_it_deploys_is_refused(prefix: str) -> None:
    text = seed_environment("screw", "production").replace("route_prefix: /\n", f"route_prefix: {prefix}\n")
    with pytest.raises(ContractError, match="must begin with a slash, end with none and hold no braces"):
        Environment.parse(text, "a.yaml")
