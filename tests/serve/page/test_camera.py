"""Photographs by a camera."""

import re

from playwright.sync_api import Page, expect


def test_a_camera_that_is_closed_and_opened_again_is_let_go(page: Page) -> None:
    page.evaluate("""() => {
        window.streams = [];
        navigator.mediaDevices.getUserMedia = () => new Promise((resolve) => {
            const stream = document.createElement("canvas").captureStream();
            streams.push({ stream, resolve: () => resolve(stream) });
        });
    }""")
    page.click("#camera")
    page.click("#lens-close")
    page.click("#camera")
    page.evaluate("streams.forEach((one) => one.resolve())")
    states = "streams.map((one) => one.stream.getTracks()[0].readyState)"
    page.wait_for_timeout(100)
    assert page.evaluate(states) == ["ended", "live"]
    page.click("#lens-close")
    page.wait_for_timeout(100)
    assert page.evaluate(states) == ["ended", "ended"]


def test_the_camera_says_what_was_judged_and_offers_the_others(page: Page) -> None:
    page.evaluate("""() => {
        navigator.mediaDevices.enumerateDevices = async () =>
            ["one", "two"].map((deviceId) => ({ kind: "videoinput", deviceId, label: `Camera ${deviceId}` }));
        window.asked = [];
        navigator.mediaDevices.getUserMedia = async ({ video }) => {
            asked.push(video.deviceId?.exact ?? null);
            const canvas = Object.assign(document.createElement("canvas"), { width: 80, height: 60 });
            const brush = canvas.getContext("2d");
            const paint = () => { brush.fillRect(0, 0, 80, 60); requestAnimationFrame(paint); };
            paint();
            return canvas.captureStream();
        };
    }""")
    page.click("#camera")
    page.click("#lens-take")
    shots = page.locator("#lens-shots li")
    expect(shots.first).to_contain_text(re.compile(r"^1: defective 0\.\d{3}"))
    expect(shots.first).to_have_attribute("data-verdict", "bad")
    expect(page.locator("#lens-choice option")).to_have_text(["Camera one", "Camera two"])
    page.select_option("#lens-choice", "two")
    expect(page.locator("#lens-take")).to_be_enabled()
    page.click("#lens-take")
    expect(shots.first).to_contain_text("2: defective")
    assert page.evaluate("asked") == [None, "two"]
