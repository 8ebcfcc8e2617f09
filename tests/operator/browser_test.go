package operator_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"lagoon/tests/internal/lagoontest"
)

// browser is a headless Chromium with one page, driven by the DevTools protocol over a pipe.
type browser struct {
	t       *testing.T
	to      io.Writer
	session string
	dead    chan struct{} // closed when it can be heard no more

	mu      sync.Mutex
	calls   int
	answers map[int]chan answer
	faults  []string // console errors and warnings, exceptions, requests that failed
	hosts   map[string]bool
}

type answer struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	lagoontest.Require(t, "chromium")
	fromHere, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, toHere, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	// Its sandbox needs privileges that containers do not have; it sees nothing but our own page.
	cmd := exec.Command("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--user-data-dir="+filepath.Join(t.TempDir(), "profile"), "--remote-debugging-pipe", "--window-size=1400,1000", "about:blank")
	cmd.ExtraFiles = []*os.File{fromHere, toHere} // descriptors 3 and 4
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = fromHere.Close(), toHere.Close()
	b := &browser{t: t, to: to, dead: make(chan struct{}), answers: map[int]chan answer{}, hosts: map[string]bool{}}
	go b.listen(from)
	t.Cleanup(func() {
		if t.Failed() {
			b.picture()
		}
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // with its helpers, which write to the profile
		_ = cmd.Wait()                                      // killed
		_ = to.Close()
		<-b.dead
		_ = from.Close()
	})
	target := decode[struct{ TargetID string }](t, string(b.call("Target.createTarget", map[string]any{"url": "about:blank"})))
	session := decode[struct{ SessionID string }](t, string(b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true})))
	b.session = session.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		b.call(domain+".enable", nil)
	}
	return b
}

// listen takes answers and notes faults until the browser is gone.
func (b *browser) listen(from io.Reader) {
	defer close(b.dead)
	in := bufio.NewReader(from)
	for {
		text, err := in.ReadBytes(0)
		if err != nil {
			return
		}
		var a answer
		if json.Unmarshal(text[:len(text)-1], &a) != nil {
			continue
		}
		b.mu.Lock()
		if c := b.answers[a.ID]; c != nil {
			c <- a
			delete(b.answers, a.ID)
		}
		b.note(a)
		b.mu.Unlock()
	}
}

// note keeps what must not happen, and where requests go. Called with mu held.
func (b *browser) note(a answer) {
	var p struct {
		Type    string
		Request struct{ URL string }
	}
	_ = json.Unmarshal(a.Params, &p) // other events have other shapes
	switch {
	case a.Method == "Runtime.exceptionThrown", a.Method == "Log.entryAdded", a.Method == "Runtime.consoleAPICalled" && (p.Type == "error" || p.Type == "warning"):
		b.faults = append(b.faults, a.Method+" "+string(a.Params))
	case a.Method == "Network.requestWillBeSent":
		scheme, rest, _ := strings.Cut(p.Request.URL, "://")
		host, _, _ := strings.Cut(rest, "/")
		b.hosts[scheme+"://"+host] = true
	}
}

func (b *browser) call(method string, params map[string]any) json.RawMessage {
	b.t.Helper()
	result, err := b.try(method, params)
	if err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
	return result
}

func (b *browser) try(method string, params map[string]any) (json.RawMessage, error) {
	b.mu.Lock()
	b.calls++
	id, c := b.calls, make(chan answer, 1)
	b.answers[id] = c
	b.mu.Unlock()
	message := map[string]any{"id": id, "method": method, "params": params}
	if params == nil {
		message["params"] = map[string]any{}
	}
	if b.session != "" {
		message["sessionId"] = b.session
	}
	text, err := json.Marshal(message)
	if err == nil {
		_, err = b.to.Write(append(text, 0))
	}
	if err != nil {
		return nil, err
	}
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	select {
	case a := <-c:
		if a.Error != nil {
			return nil, fmt.Errorf("%s", a.Error.Message)
		}
		return a.Result, nil
	case <-b.dead:
		return nil, io.ErrUnexpectedEOF
	case <-limit.C:
		return nil, os.ErrDeadlineExceeded
	}
}

// open loads a page.
func (b *browser) open(url string) {
	b.t.Helper()
	b.call("Page.navigate", map[string]any{"url": url})
	b.shows("the page has loaded", fmt.Sprintf(`location.href === %q && document.readyState === "complete"`, url))
}

// eval gives what an expression comes to in the page, as JSON.
func (b *browser) eval(expression string) string {
	b.t.Helper()
	type outcome struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	o := decode[outcome](b.t, string(b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true})))
	if o.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", expression, o.ExceptionDetails)
	}
	return string(o.Result.Value)
}

// shows waits until an expression is true in the page.
func (b *browser) shows(what, expression string) {
	b.t.Helper()
	eventually(b.t, time.Minute, what, func() bool { return b.eval("Boolean("+expression+")") == "true" })
}

func (b *browser) key(name string) {
	b.t.Helper()
	for _, kind := range []string{"keyDown", "keyUp"} {
		b.call("Input.dispatchKeyEvent", map[string]any{"type": kind, "key": name, "code": name})
	}
}

func (b *browser) mouse(kind string, x, y float64) {
	b.t.Helper()
	p := map[string]any{"type": kind, "x": x, "y": y}
	if kind != "mouseMoved" {
		p["button"], p["clickCount"] = "left", 1
	}
	b.call("Input.dispatchMouseEvent", p)
}

// fine checks that nothing went wrong so far and that nothing was asked of other hosts.
func (b *browser) fine(host string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.faults {
		b.t.Errorf("in the browser: %.600s", f)
	}
	for h := range b.hosts {
		if h != host {
			b.t.Errorf("a request went to %s", h)
		}
	}
}

// picture leaves a screenshot where the test's log says.
func (b *browser) picture() {
	shot, err := b.try("Page.captureScreenshot", nil)
	if err != nil {
		return
	}
	var s struct{ Data string }
	if json.Unmarshal(shot, &s) != nil {
		return
	}
	png, err := base64.StdEncoding.DecodeString(s.Data)
	if err != nil {
		return
	}
	f, err := os.CreateTemp("", "lagoon-page-*.png")
	if err != nil {
		return
	}
	defer f.Close()
	if _, err := f.Write(png); err == nil {
		b.t.Logf("what the browser showed: %s", f.Name())
	}
}
