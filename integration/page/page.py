"""The live page, as somebody at a browser meets it (integration/page/run).

One mesh is looked at from page to page: each function goes on where the one before it has left off. Nothing sleeps: Playwright waits for
what is to be seen.
"""

import argparse
import contextlib
import os
import pathlib
import re
import subprocess
import time
import urllib.error
import urllib.request

from mesh import PATIENCE, REPOSITORY, Load, Mesh
from playwright.sync_api import expect, sync_playwright

expect.set_options(timeout=PATIENCE * 1000)

# What would be an element, a script or a request if it were taken for markup.
HOSTILE = "<img src=x onerror=document.title='taken'>"
HOSTILE_ROUTE = f"""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: hostile, namespace: shop}}
spec:
  parentRefs: [{{group: "", kind: Service, name: web-v2}}]
  rules:
  - matches:
    - headers: [{{name: x-hostile, value: "{HOSTILE}"}}]
      queryParams: [{{name: q, value: "\\"><script>document.title='taken'</script>"}}]
    filters: [{{type: "{HOSTILE}"}}]
    backendRefs: [{{name: web-v2, port: 80}}]
"""
MISSED_ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: missed, namespace: shop}
spec:
  parentRefs: [{name: web}]
  rules: [{backendRefs: [{name: web-v2, port: 80}]}]
"""
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {{name: many-{}, namespace: default}}\nspec: {{ports: [{{port: 80}}]}}\n"


class Camera:
    """Takes the documentation's pictures, if they are wanted."""

    def __init__(self, directory):
        self.directory = directory

    def take(self, part, name):
        if self.directory:
            part.screenshot(path=self.directory / f"{name}.png")

    def wait(self, locator):
        """For a picture it may take two minutes until there is enough to be seen."""
        if self.directory:
            expect(locator).to_be_visible(timeout=120_000)


class Visitor:
    """A tab, and all that it must not do."""

    def __init__(self, browser, url):
        self.url = url
        self.context = browser.new_context(viewport={"width": 1080, "height": 640})
        self.page = self.context.new_page()
        self.requests, self.errors = [], []
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: said.type == "error" and self.errors.append(said.text))
        self.page.on("dialog", lambda dialog: self.errors.append(f"dialog {dialog.message}"))

    def open(self, path=""):
        self.page.goto(self.url + path)
        return self.page

    def row(self, text):
        """The row that begins with this text."""
        exact = re.compile(f"^{re.escape(text)}$")
        return self.page.get_by_role("row").filter(has=self.page.get_by_role("cell").first.filter(has_text=exact))

    def cell(self, row, column):
        """The cell of a row's table below this heading, once there is such a row."""
        expect(row).to_be_visible()
        heads = row.locator("xpath=ancestor::table").get_by_role("columnheader").all_inner_texts()
        return row.get_by_role("cell").nth([head.strip(" ↑↓") for head in heads].index(column))


def services_show_their_rates(visitor):
    page = visitor.open()
    expect(page.get_by_role("heading", level=1)).to_have_text("Services")
    row = visitor.row("shop/web")
    expect(visitor.cell(row, "Rate")).to_have_text(re.compile(r"^[1-9][\d,.]*/s$"))
    expect(visitor.cell(row, "Success")).to_have_text("100%")
    expect(visitor.cell(row, "p99")).to_have_text(re.compile(r"^[\d.]+ m?s$"))
    expect(visitor.cell(visitor.row("shop/web-v1"), "Rate")).to_have_text("0/s")
    expect(visitor.cell(visitor.row("shop/web-v1"), "As a backend")).to_have_text(re.compile(r"^[1-9][\d,.]*/s, 100%$"))
    expect(visitor.cell(row, "Last two minutes").locator("path")).to_have_count(1)


def a_service_shows_callers_and_where_requests_went(visitor):
    page = visitor.page
    page.get_by_role("link", name="shop/web", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Service shop/web")
    expect(page.get_by_role("img", name="requests in a second, over time")).to_be_visible()
    expect(page.get_by_role("link", name=re.compile("^shop.client-"))).to_be_visible()
    expect(page.get_by_role("cell", name="web-v2:80", exact=True)).to_be_visible()


def a_route_shows_its_split_and_the_change_of_it(visitor, mesh, camera):
    page = visitor.page
    page.get_by_role("link", name="shop/web", exact=True).first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("HTTPRoute shop/web")
    expect(page.get_by_text("Accepted=True")).to_be_visible()
    expect(page.get_by_text("session in cookie shop-version")).to_be_visible()
    split = page.locator("section").filter(has=page.get_by_role("heading", name="Rule split"))
    row = split.get_by_role("row").filter(has=page.get_by_role("cell", name="web-v1:80", exact=True))
    expect(visitor.cell(row, "Set")).to_have_text("90%")
    # Of some 1500 requests: five standard deviations are 4 %.
    expect(visitor.cell(row, "Got, last 10 s")).to_have_text(re.compile(r"^(8[6-9]|9[0-4])(\.\d)?%$"))
    expect(split.get_by_text(re.compile("Sessions since the sidecars started: .*started [1-9]"))).to_be_visible()
    curves = split.locator("path.curve.set")
    before = curves.nth(0).get_attribute("d")
    camera.wait(split.locator("svg text").get_by_text(re.compile("^-1m")).first)
    mesh.edit("4-route.yaml", ("weight: 90", "weight: 50"), ("weight: 10", "weight: 50"))
    expect(visitor.cell(row, "Set")).to_have_text("50%")
    expect(visitor.cell(row, "Got, last 10 s")).to_have_text(re.compile(r"^(4[4-9]|5[0-6])(\.\d)?%$"))
    assert curves.nth(0).get_attribute("d") != before, "the plot has the change"
    camera.wait(split.locator("svg text").get_by_text(re.compile("^-1m3")).first)
    camera.take(split, "route")


def what_sidecars_answer_themselves_is_a_part_of_the_split(visitor, mesh):
    page = visitor.page
    # The last backend of the file is the split's: half of it leads nowhere now.
    mesh.edit("4-route.yaml", ("name: web-v2\n      port: 80\n      weight: 50", "name: web-v22\n      port: 80\n      weight: 50"))
    split = page.locator("section").filter(has=page.get_by_role("heading", name="Rule split"))
    row = split.get_by_role("row").filter(has=page.get_by_role("cell", name="answered by the sidecar itself", exact=True))
    expect(visitor.cell(row, "Got, last 10 s")).to_have_text(re.compile(r"^(4[4-9]|5[0-6])(\.\d)?%$"))
    expect(visitor.cell(row, "Failed in all")).to_have_text(re.compile(r"^[1-9][\d,]*$"))
    expect(split.locator("path.curve.sbad").first).to_be_visible()
    mesh.edit("4-route.yaml", ("name: web-v22", "name: web-v2"))


def a_route_that_misses_its_service_is_told(visitor, mesh):
    mesh.save("missed.yaml", MISSED_ROUTE)
    page = visitor.open("routes")
    expect(visitor.cell(page.get_by_role("row").filter(has_text="shop/missed"), "Attached to")).to_have_text("misses its Service")
    page.get_by_role("link", name="shop/missed").click()
    expect(page.get_by_text(re.compile("^Attached to nothing of the mesh: .*kind: Service"))).to_be_visible()


def a_pod_shows_who_it_is(visitor, camera):
    page = visitor.open("pods")
    expect(page.get_by_role("cell", name="spiffe://cluster.local/ns/shop/sa/client")).to_be_visible()
    page.get_by_role("link", name=re.compile("^shop.client-")).click()
    for text in ["spiffe://cluster.local/ns/shop/sa/client", "Deployment client"]:
        expect(page.get_by_text(text, exact=True)).to_be_visible()
    expect(page.get_by_text(re.compile(r"\d+s? ?old, 23h\d+m left"))).to_be_visible()
    expect(page.get_by_text(re.compile(r"^newest \(\d+\)$"))).to_be_visible()
    expect(page.get_by_text(re.compile("open, .* since the sidecar started")).first).to_be_visible()
    expect(page.get_by_role("cell", name="trust bundle").or_(page.get_by_role("cell", name=re.compile("shop.web:80"))).first).to_be_visible()
    camera.take(page, "pod")


def the_keyboard_is_enough(visitor):
    page = visitor.open()
    expect(visitor.row("shop/web")).to_be_visible()
    keys = page.keyboard
    keys.press("/")
    keys.type("web-v")
    expect(page.locator("tbody tr")).to_have_count(2)
    keys.press("Escape")
    expect(page.locator("tbody tr")).not_to_have_count(2)
    focused = "document.activeElement.textContent"
    keys.press("ArrowDown")
    keys.press("ArrowDown")
    second = page.evaluate(focused)
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", f"what has the focus is to be seen: outline {outline}"
    # New figures don't take the focus away.
    with page.expect_response("**/api/services"):
        pass
    with page.expect_response("**/api/services"):
        pass
    assert page.evaluate(focused) == second
    keys.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Service {second}")
    # The Tab key reaches the pages, from the beginning.
    page.goto(visitor.url)
    reached = []
    for _ in range(6):
        keys.press("Tab")
        reached.append(page.evaluate(focused))
    assert reached[1:4] == ["Services", "Routes", "Pods"], reached
    # Columns are sorted by their heading's button.
    page.get_by_role("button", name="Rate").focus()
    keys.press("Enter")
    expect(page.get_by_role("columnheader", name="Rate")).to_have_attribute("aria-sort", "descending")
    expect(page.locator("tbody tr").first).to_contain_text("shop/web")


def dark_where_the_desktop_is(visitor, camera):
    page = visitor.open()
    expect(visitor.row("shop/web")).to_be_visible()
    lightness = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number).reduce((a, b) => a + b)"
    assert page.evaluate(lightness) > 700
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(lightness) < 120
    camera.take(page.locator("body"), "services-dark")
    page.emulate_media(color_scheme="light")
    camera.take(page.locator("body"), "services")


def texts_from_elsewhere_are_texts(visitor, mesh):
    mesh.save("hostile.yaml", HOSTILE_ROUTE)
    (mesh.manifests / "wrong.yaml").write_text(f'apiVersion: v1\nkind: Service\nmetadata: {{name: "{HOSTILE}", namespace: shop}}\n')
    page = visitor.open("routes/HTTPRoute/shop/hostile")
    expect(page.locator("code").filter(has_text=HOSTILE)).to_be_visible()
    expect(page.get_by_text("<script>document.title='taken'</script>")).to_be_visible()
    expect(page.get_by_role("alert").get_by_text(HOSTILE).first).to_be_visible()
    assert page.locator("img, script:not([src])").count() == 0
    assert page.title() != "taken"
    (mesh.manifests / "wrong.yaml").unlink()
    page.goto(f"{visitor.url}pods/shop/{urllib.request.quote(HOSTILE, safe='')}")
    expect(page.get_by_text("There is no such thing")).to_be_visible()


def five_hundred_services_are_shown_at_once(visitor, mesh):
    mesh.save("many.yaml", "---\n".join(SERVICE.format(number) for number in range(500)))
    page = visitor.open()
    expect(page.locator("tbody tr")).to_have_count(503)
    began = time.monotonic()
    page.keyboard.press("/")
    page.keyboard.type("many-499")
    expect(page.locator("tbody tr")).to_have_count(1)
    took = time.monotonic() - began
    print(f"  503 Services: searched in {took * 1000:.0f} ms")
    assert took < 3, f"a search among 503 Services took {took} s"


def only_this_machines_browser_is_answered(visitor):
    def status(method="GET", host=None):
        request = urllib.request.Request(f"{visitor.url}api/services", method=method, headers={"Host": host} if host else {})
        try:
            return urllib.request.urlopen(request, timeout=PATIENCE).status
        except urllib.error.HTTPError as error:
            return error.code

    assert [status(), status(host="localhost"), status(host="evil.example"), status("POST")] == [200, 200, 403, 405]


def an_end_is_said(visitor, mesh):
    page = visitor.open()
    expect(visitor.row("shop/web")).to_be_visible()
    calm = len(visitor.errors)
    mesh.stop()
    expect(page.get_by_role("alert")).to_contain_text("has ended")
    # Chromium itself tells of each request that nobody answers.
    assert all("ERR_CONNECTION_REFUSED" in error or "Failed to load" in error for error in visitor.errors[calm:])
    del visitor.errors[calm:]


def an_empty_mesh_is_shown_as_such(browser, gamut):
    with Mesh(gamut, f"page-empty-{os.getpid()}") as mesh:
        visitor = Visitor(browser, mesh.url)
        expect(visitor.open().get_by_text("There are no Services yet.")).to_be_visible()
        expect(visitor.open("routes").get_by_text("There are no routes.")).to_be_visible()
        behaved(visitor)


def a_cluster_that_does_not_answer_is_said(browser, gamut, directory):
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: nowhere\n"
        "clusters: [{name: nowhere, cluster: {server: 'http://127.0.0.1:1'}}]\n"
        "contexts: [{name: nowhere, context: {cluster: nowhere, user: nobody}}]\nusers: [{name: nobody, user: {}}]\n"
    )
    dash = subprocess.Popen([gamut, "dash", "--kubeconfig", kubeconfig], stdout=subprocess.PIPE, text=True)
    try:
        visitor = Visitor(browser, dash.stdout.readline().strip())
        alert = visitor.open().get_by_role("alert")
        expect(alert).to_contain_text("The mesh can't be asked: context nowhere (http://127.0.0.1:1")
        behaved(visitor)
    finally:
        dash.terminate()
        dash.wait(PATIENCE)


def behaved(visitor):
    """Nothing went beyond this machine, and nothing went wrong."""
    strangers = [request for request in visitor.requests if not request.startswith(visitor.url)]
    assert visitor.requests and not strangers, f"requests to others: {strangers}"
    assert not visitor.errors, f"the browser complains: {visitor.errors}"
    visitor.context.close()


@contextlib.contextmanager
def chromium():
    with sync_playwright() as playwright:
        # No sandbox: tests run as root, and what is looked at is our own.
        arguments = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        yield browser
        browser.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=pathlib.Path, default=REPOSITORY / "target/debug", help="where gamut is")
    parser.add_argument("--screenshots", type=pathlib.Path, help="write the documentation's pictures there")
    options = parser.parse_args()
    gamut = (options.bin if options.bin.is_absolute() else REPOSITORY / options.bin) / "gamut"

    camera = Camera(options.screenshots)
    # The documentation's pictures are of what a reader would see.
    name = f"page-{os.getpid()}" if options.screenshots is None else "default"

    def step(test, *arguments):
        began = time.monotonic()
        test(*arguments)
        print(f"{test.__name__}: {time.monotonic() - began:.1f} s", flush=True)

    with chromium() as browser, Mesh(gamut, name, "examples/canary") as mesh:
        visitor = Visitor(browser, mesh.url)
        with Load(mesh):
            step(services_show_their_rates, visitor)
            step(a_service_shows_callers_and_where_requests_went, visitor)
            step(a_route_shows_its_split_and_the_change_of_it, visitor, mesh, camera)
            step(what_sidecars_answer_themselves_is_a_part_of_the_split, visitor, mesh)
            step(a_pod_shows_who_it_is, visitor, camera)
            step(the_keyboard_is_enough, visitor)
            step(dark_where_the_desktop_is, visitor, camera)
        step(texts_from_elsewhere_are_texts, visitor, mesh)
        step(a_route_that_misses_its_service_is_told, visitor, mesh)
        step(five_hundred_services_are_shown_at_once, visitor, mesh)
        step(only_this_machines_browser_is_answered, visitor)
        step(a_cluster_that_does_not_answer_is_said, browser, gamut, mesh.directory)
        step(an_end_is_said, visitor, mesh)
        behaved(visitor)
        step(an_empty_mesh_is_shown_as_such, browser, gamut)
    print("the live page is as it should be")


if __name__ == "__main__":
    main()
