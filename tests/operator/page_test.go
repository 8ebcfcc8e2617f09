package operator_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"lagoon/internal/admin"
	"lagoon/internal/admin/admintest"
	"lagoon/tests/internal/lagoontest"
)

// pixels counts the canvas's pixels that are about as light as something resident, and those that are not its ground.
const pixels = `(() => {
  const c = document.getElementById("map"), copy = new OffscreenCanvas(c.width, c.height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(c, 0, 0);
  const d = copy.getImageData(0, 0, c.width, c.height).data;
  let light = 0, drawn = 0;
  for (let i = 0; i < d.length; i += 4) {
    const [r, g, b] = [d[i], d[i + 1], d[i + 2]];
    if (r !== 16 || g !== 28 || b !== 38) drawn++;
    if (b > 240 && g > 200 && r > 120 && r < 200) light++;
  }
  return { light, drawn };
})()`

type counted struct{ Light, Drawn int }

// TestPage: the page of a real broker, as somebody sees it: what is resident, who reads, and how a read would be served.
func TestPage(t *testing.T) {
	b := newBrowser(t)
	broker := lagoontest.Start(t, lagoontest.Options{Config: `
[storage]
segment_bytes = "4MiB"
[readers]
lagging_when = { min_bytes = "4MiB", min_age = "1ms" }
[cache]
hot_window_memory = "0%"
`})
	b.open(broker.Admin() + "/")
	b.shows("an empty broker says so", `document.getElementById("tiles").textContent.includes("ready") && document.getElementById("map-empty").textContent.startsWith("No topics yet")`)
	fill(t, broker, "orders", 200)
	cl, err := kgo.NewClient(kgo.SeedBrokers(broker.Bootstrap()), kgo.ConsumeTopics("orders"), kgo.ClientID("fraud-1"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for n := 0; n < 200; {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		n += fetches.NumRecords()
	}
	b.shows("the topic and its reader", `document.getElementById("map-sum").textContent.startsWith("1 partition,") && document.querySelector("#readers tbody").textContent.includes("fraud-1")`)
	b.shows("tiers", `document.querySelectorAll("#tiers .tier").length === 2`)
	var hot counted
	eventually(t, time.Minute, "resident cells are light", func() bool {
		hot = decode[counted](t, b.eval(pixels))
		return hot.Light > 5000
	})

	// Half of it goes, and that half gets dark without anybody asking again.
	run(t, broker, 0, "cache", "evict", "orders/0", "--to", "100", "--yes")
	eventually(t, time.Minute, "evicted cells are dark", func() bool {
		now := decode[counted](t, b.eval(pixels))
		return now.Light < hot.Light*3/4 && now.Light > hot.Light/4
	})

	// Pointer: what is there, and how it would be read.
	box := decode[[]float64](t, b.eval(`(() => { const r = document.getElementById("map").getBoundingClientRect(); return [r.left, r.top, r.width, r.height]; })()`))
	x, y := box[0]+box[2]*0.3, box[1]+box[3]/2
	b.mouse("mouseMoved", x, y)
	b.shows("a card with the segment", `(() => { const t = document.getElementById("card").textContent; return t.includes("orders/0") && t.includes("segment ") && t.includes("nothing of"); })()`)
	b.mouse("mousePressed", x, y)
	b.mouse("mouseReleased", x, y)
	b.shows("the decision", `document.getElementById("explain").open && document.querySelectorAll("#explain-body li").length >= 6 && document.getElementById("explain-body").textContent.includes("Lane ")`)
	b.eval(`document.getElementById("explain-close").click()`)

	// Keys, and what a screen reader gets.
	b.eval(`document.getElementById("map").focus()`)
	b.key("Home")
	b.shows("the first cell is said", `document.getElementById("map-said").textContent.includes("20.0 MiB before the end") || document.getElementById("map-said").textContent.includes("19.5 MiB before the end")`)
	b.key("Enter")
	b.shows("the decision again", `document.getElementById("explain").open`)
	b.eval(`document.getElementById("explain-close").click()`)
	b.eval(`document.getElementById("as-table").click()`)
	b.shows("the table alternative", `document.querySelector("#map-table tbody").textContent.startsWith("orders/0") && !document.getElementById("map-table").hidden && document.getElementById("map-scroll").hidden`)
	b.eval(`(() => { const f = document.getElementById("filter"); f.value = "nothing"; f.dispatchEvent(new Event("input")); })()`)
	b.shows("a filter", `document.getElementById("map-empty").textContent === "No topic matches."`)
	b.fine(broker.Admin())

	// A broker that goes away and comes again.
	broker.Kill()
	b.shows("the fault", `document.getElementById("link").className.includes("bad")`)
	broker.Restart()
	b.shows("connected again", `document.getElementById("link").textContent === "live"`)
}

// TestPageWantsTheToken: with a token configured, the page shows nothing before it is given, and then all.
func TestPageWantsTheToken(t *testing.T) {
	b := newBrowser(t)
	const token = "0123456789abcdef0123456789abcdef"
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	broker := lagoontest.Start(t, lagoontest.Options{Set: []string{"admin.token_file=" + file}})
	b.open(broker.Admin() + "/")
	b.shows("the form", `!document.getElementById("login").hidden && document.getElementById("main").hidden`)
	give := func(text string) {
		b.eval(fmt.Sprintf(`(() => { document.getElementById("login-fault").textContent = ""; document.getElementById("token").value = %q; document.querySelector("#login button").click(); })()`, text))
	}
	refused := `document.getElementById("login-fault").textContent !== "" && !document.getElementById("login").hidden`
	give(strings.Repeat("ž", 32)) // fits into no header
	b.shows("a refusal", refused)
	give(strings.Repeat("x", 32))
	b.shows("a refusal", refused)
	give(token)
	b.shows("the page", `document.getElementById("login").hidden && document.getElementById("tiles").textContent.includes("ready")`)
	if got := b.eval(`localStorage.length + document.cookie.length`); got != "0" {
		t.Errorf("the token outlives the tab: %s", got)
	}
}

// wide is a broker with very many partitions.
type wide struct {
	*admintest.Fake
	rows []admin.CacheRow
}

func (w *wide) Status(ctx context.Context) (admin.Status, error) {
	st, err := w.Fake.Status(ctx)
	st.Partitions = len(w.rows)
	return st, err
}

func (w *wide) Cache(context.Context, admin.CacheQuery) (admin.Cache, error) {
	return admin.Cache{Method: "cachestat", Rows: slices.Clone(w.rows)}, nil
}

// TestPageWithThousandsOfPartitions: only rows in view are drawn.
func TestPageWithThousandsOfPartitions(t *testing.T) {
	b := newBrowser(t)
	backend := &wide{Fake: admintest.New()}
	for p := range 2000 {
		backend.rows = append(backend.rows, admin.CacheRow{
			CacheFigures: admin.CacheFigures{Topic: fmt.Sprintf("wide-%d", p/1000), Partition: int32(p % 1000), Bytes: 32 << 20, CellBytes: 1 << 20, ResidentBytes: 16 << 20},
			Cells:        append(make([]byte, 16), bytes.Repeat([]byte{255}, 16)...), Flags: make([]byte, 32), Tiers: []admin.TierSpan{{Next: 32, Tier: "ssd"}}})
	}
	server, err := admin.New(admin.Options{Listen: "127.0.0.1:0", Backend: backend})
	if err == nil {
		err = server.Listen()
	}
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve() }()
	defer func() {
		if err := errors.Join(server.Close(context.Background()), <-served); err != nil {
			t.Error(err)
		}
	}()
	url := "http://" + server.Addr().String()
	b.open(url + "/")
	b.shows("all of them", `document.getElementById("map-sum").textContent.startsWith("2,000 partitions, 31.3 GiB of 62.5 GiB")`)
	b.shows("room for all, a canvas for some", `document.getElementById("map-space").clientHeight >= 2000 * 30 && document.getElementById("map").clientHeight < 1000`)
	if got := decode[counted](t, b.eval(pixels)); got.Light < 10000 {
		t.Errorf("%+v", got)
	}
	b.eval(`(() => { const s = document.getElementById("map-scroll"); s.scrollTop = s.scrollHeight; })()`)
	b.shows("the last rows", `document.getElementById("map-scroll").scrollTop > 2000 * 30 - 1000`)
	if got := decode[counted](t, b.eval(pixels)); got.Light < 10000 {
		t.Errorf("at the end %+v", got)
	}
	took := decode[float64](t, b.eval(`(() => { const s = document.getElementById("map-scroll"), begin = performance.now(); for (let i = 0; i < 20; i++) { s.scrollTop = i * 1000; s.dispatchEvent(new Event("scroll")); } return (performance.now() - begin) / 20; })()`))
	t.Logf("a frame of the map takes %.1f ms", took)
	b.fine(url)
}

// TestPageDemo: the recording plays without anything but the page itself.
func TestPageDemo(t *testing.T) {
	b := newBrowser(t)
	broker := lagoontest.Start(t, lagoontest.Options{})
	b.open(broker.Admin() + "/?demo=1")
	b.shows("the recording", `document.getElementById("link").textContent.includes("recording") && document.querySelectorAll("#readers tbody tr").length > 3`)
	if got := decode[counted](t, b.eval(pixels)); got.Drawn < 10000 {
		t.Errorf("the map has %d pixels", got.Drawn)
	}
	b.shows("it goes on", `Number(document.documentElement.dataset.frames) >= 3`)
	b.fine(broker.Admin())
}
