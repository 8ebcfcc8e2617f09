package quotas_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"lagoon/internal/quotas"
)

// TestScenarios replays testdata/*.txt: each is one story with its own clock. Rewrite the expected answers with -rewrite, and read
// the diff.
//
//	limit ENTITY… KEY=VALUE          sets a limit; user=A, client=B, ip=C, * for the default
//	unlimit ENTITY… KEY              takes it away
//	which user=A client=B KEY        the limit that holds and who shares it
//	record user=A client=B KEY=N     what the client has to wait
//	every 100ms for=5s …             the same again and again; tells when it began to wait, and the rate that it got when it obeys
//	most …                           what may be given at once
//	mutate user=A client=B n=N [strict]   connect ip=A   connects D for=D ip=A   advance D   meters
//	crowd clients=N KEY=M            N clients that were never seen record M each
func TestScenarios(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, file string) {
		if filepath.Ext(file) != ".txt" {
			t.Fatalf("%s: not a scenario", file)
		}
		w := &world{limits: map[quotas.Entity]map[string]float64{}, now: time.Unix(1000, 0)}
		w.meters = quotas.NewMeters(quotas.NewTable(nil), w.now)
		datadriven.RunTest(t, file, func(t *testing.T, td *datadriven.TestData) string {
			return w.run(t, td) + "\n"
		})
	})
}

type world struct {
	limits map[quotas.Entity]map[string]float64
	meters *quotas.Meters
	now    time.Time
}

func (w *world) run(t *testing.T, td *datadriven.TestData) string {
	switch td.Cmd {
	case "limit", "unlimit":
		return w.limit(t, td)
	case "which":
		k, _ := key(t, td)
		limit, shared, ok := quotas.NewTable(w.limits).Limit(k, who(td))
		if !ok {
			return "none"
		}
		return fmt.Sprintf("%g shared by %s", limit, shared)
	case "record":
		k, n := key(t, td)
		return wait(w.meters.Record(k, who(td), n, w.now))
	case "every":
		return w.every(t, td)
	case "most":
		k, _ := key(t, td)
		n, limited := w.meters.Most(k, who(td))
		return fmt.Sprintf("%g %v", n, limited)
	case "mutate":
		d, refused := w.meters.Mutate(who(td), number(t, arg(td, "n")), slices.ContainsFunc(td.CmdArgs, func(a datadriven.CmdArg) bool { return a.Key == "strict" }), w.now)
		if refused {
			return "refused, " + wait(d)
		}
		return wait(d)
	case "connect":
		return wait(w.meters.Connect(arg(td, "ip"), w.now))
	case "connects":
		step, length, tried, admitted := duration(t, td.CmdArgs[0].Key), duration(t, arg(td, "for")), 0, 0
		for begin := w.now; w.now.Sub(begin) < length; w.now = w.now.Add(step) {
			if tried++; w.meters.Connect(arg(td, "ip"), w.now) == 0 {
				admitted++
			}
		}
		return fmt.Sprintf("%d of %d admitted", admitted, tried)
	case "advance":
		w.now = w.now.Add(duration(t, td.CmdArgs[0].Key))
		return "ok"
	case "crowd": // as many clients as asked for, each with one record
		k, n := key(t, td)
		for i := range int(number(t, arg(td, "clients"))) {
			w.meters.Record(k, quotas.Client{User: "u", ClientID: "made-up-" + strconv.Itoa(i)}, n, w.now)
		}
		return "ok"
	case "meters":
		return strconv.Itoa(w.meters.Len())
	}
	td.Fatalf(t, "unknown command %q", td.Cmd)
	return ""
}

func (w *world) limit(t *testing.T, td *datadriven.TestData) string {
	e := quotas.Entity{User: part(td, "user"), ClientID: part(td, "client"), IP: part(td, "ip")}
	if err := e.Check(); err != nil {
		return err.Error()
	}
	for _, a := range td.CmdArgs {
		if a.Key == "user" || a.Key == "client" || a.Key == "ip" {
			continue
		}
		if td.Cmd == "unlimit" {
			delete(w.limits[e], a.Key)
			continue
		}
		value := number(t, a.Vals[0])
		if err := quotas.CheckLimit(e, a.Key, value, 1000); err != nil {
			return err.Error()
		}
		if w.limits[e] == nil {
			w.limits[e] = map[string]float64{}
		}
		w.limits[e][a.Key] = value
	}
	w.meters.SetTable(quotas.NewTable(w.limits))
	return "ok"
}

// every is a client that obeys: it waits as long as it is told to.
func (w *world) every(t *testing.T, td *datadriven.TestData) string {
	k, n := key(t, td)
	step, length := duration(t, td.CmdArgs[0].Key), duration(t, arg(td, "for"))
	begin, sent, waits := w.now, 0.0, 0
	first := time.Duration(-1)
	for w.now.Sub(begin) < length {
		d := w.meters.Record(k, who(td), n, w.now)
		sent += n
		if d > 0 {
			if waits++; first < 0 {
				first = w.now.Sub(begin)
			}
		}
		w.now = w.now.Add(step + d)
	}
	if waits == 0 {
		return fmt.Sprintf("never waited, %.0f per second", sent/w.now.Sub(begin).Seconds())
	}
	return fmt.Sprintf("waited %d times, first after %v; %.0f per second", waits, first, sent/w.now.Sub(begin).Seconds())
}

func wait(d time.Duration) string { return fmt.Sprintf("wait %v", d) }

func arg(td *datadriven.TestData, name string) string {
	for _, a := range td.CmdArgs {
		if a.Key == name {
			return strings.Join(a.Vals, ",")
		}
	}
	return ""
}

func part(td *datadriven.TestData, name string) quotas.Part {
	for _, a := range td.CmdArgs {
		switch {
		case a.Key != name:
		case len(a.Vals) == 1 && a.Vals[0] == "*":
			return quotas.Default()
		default:
			return quotas.Named(strings.Join(a.Vals, ","))
		}
	}
	return quotas.Part{}
}

func who(td *datadriven.TestData) quotas.Client {
	return quotas.Client{User: arg(td, "user"), ClientID: arg(td, "client")}
}

// key is the argument that is a key, with its number.
func key(t *testing.T, td *datadriven.TestData) (quotas.Key, float64) {
	t.Helper()
	for _, a := range td.CmdArgs {
		if k, ok := quotas.ParseKey(a.Key); ok {
			if len(a.Vals) == 0 {
				return k, 0
			}
			return k, number(t, a.Vals[0])
		}
	}
	td.Fatalf(t, "no key")
	return 0, 0
}

func number(t *testing.T, s string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(s, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func duration(t *testing.T, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
