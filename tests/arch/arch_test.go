package arch_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const root = "../.."

// file is one parsed Go file.
type file struct {
	path string // relative to the module
	pkg  string // import path without the module: "internal/broker"
	test bool
	ast  *ast.File
}

// load parses every Go file of the module.
func load(t *testing.T) (*token.FileSet, []file) {
	t.Helper()
	fset := token.NewFileSet()
	var files []file
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "lagoon-data") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(p, ".go") {
			return nil
		}
		f, err := parser.ParseFile(fset, p, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		files = append(files, file{path: rel, pkg: path.Dir(rel), test: strings.HasSuffix(rel, "_test.go"), ast: f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 100 {
		t.Fatalf("only %d Go files found below %s", len(files), root)
	}
	return fset, files
}

// allowed says which packages of the module each package may import (tests may import more). A package that is not here
// fails: a new one has to find its place in docs/design.md §2 first.
var allowed = map[string][]string{
	"admission":                  {},
	"segment":                    {"internal/vfs"},
	"cachectl":                   {"internal/vfs"},
	"cachectl/cachetest":         {"internal/vfs", "cachectl"},
	"tiering":                    {"internal/vfs", "segment"},
	"conf":                       {"internal/nearest"},
	"internal/nearest":           {},
	"internal/vfs":               {},
	"internal/vfs/vfstest":       {"internal/vfs"},
	"internal/journal":           {"internal/vfs", "cachectl"},
	"internal/records":           {"segment"},
	"internal/quotas":            {},
	"internal/metadata":          {"internal/vfs", "internal/nearest", "internal/quotas"},
	"internal/compaction":        {"internal/records", "segment"},
	"internal/groups":            {"internal/groups/classic", "internal/groups/consumer", "internal/partition", "internal/records", "internal/statetopic", "segment"},
	"internal/groups/classic":    {},
	"internal/groups/consumer":   {"internal/groups/classic"},
	"internal/statetopic":        {"internal/partition", "segment"},
	"internal/transactions":      {"internal/transactions/txn", "internal/partition", "internal/records", "internal/statetopic", "segment"},
	"internal/transactions/txn":  {},
	"internal/groups/groupstest": {"internal/compaction", "internal/partition", "segment"},
	"internal/scenariotest":      {},
	"internal/partition":         {"internal/vfs", "internal/journal", "internal/records", "internal/compaction", "segment", "cachectl", "admission", "tiering"},
	"internal/broker/wire":       {},
	"internal/broker":            {"internal/broker/wire", "internal/groups", "internal/groups/classic", "internal/groups/consumer", "internal/transactions", "internal/transactions/txn", "internal/statetopic", "internal/partition", "internal/metadata", "internal/quotas", "segment", "admission", "tiering", "internal/nearest"},
	"internal/admin":             {"internal/nearest"},
	"internal/admin/admintest":   {"internal/admin"},
	"internal/lab/spindle":       {},
	"internal/lab":               {"internal/lab/spindle"},
	"internal/lab/labtest":       {"internal/lab"},
	"internal/rawkafka":          {},
	"internal/bench/report":      {},
	"internal/bench":             {"internal/bench/report", "internal/rawkafka", "internal/lab"},
	"internal/bench/readpath":    {"internal/lab"},
	"cmd/lagoon-bench":           {"conf", "internal/bench", "internal/bench/readpath", "internal/bench/report", "internal/lab"},
	"cmd/lagoon":                 {"conf", "internal/admin", "internal/broker", "internal/groups", "internal/groups/classic", "internal/groups/consumer", "internal/transactions", "internal/partition", "internal/metadata", "internal/quotas", "internal/vfs", "cachectl", "admission", "tiering", "segment"},
}

func TestImportsFollowThePicture(t *testing.T) {
	_, files := load(t)
	for _, f := range files {
		if f.test || strings.HasPrefix(f.pkg, "tests/") {
			continue
		}
		may, known := allowed[f.pkg]
		if !known {
			t.Errorf("%s: package %s is not in the picture: add it to docs/design.md §2 and to this test", f.path, f.pkg)
			continue
		}
		for _, imp := range f.ast.Imports {
			p, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if inner, ok := strings.CutPrefix(p, "lagoon/"); ok && !slices.Contains(may, inner) {
				t.Errorf("%s imports %s; %s may import %v", f.path, inner, f.pkg, may)
			}
		}
	}
}

// pure packages have no clock, no I/O and no goroutine: they are driven by their callers and tested by scenarios.
func TestPureStaysPure(t *testing.T) {
	_, files := load(t)
	for _, f := range files {
		if f.test || f.pkg != "admission" && f.pkg != "internal/lab/spindle" {
			continue
		}
		for _, imp := range f.ast.Imports {
			switch p := strings.Trim(imp.Path.Value, `"`); p {
			case "os", "io", "net", "sync", "context", "math/rand", "math/rand/v2":
				t.Errorf("%s imports %s", f.path, p)
			}
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if _, ok := n.(*ast.GoStmt); ok {
				t.Errorf("%s starts a goroutine", f.path)
			}
			if isCall(n, "time", "Now") || isCall(n, "time", "Sleep") || isCall(n, "time", "After") {
				t.Errorf("%s asks the clock", f.path)
			}
			return true
		})
	}
}

// banned calls, where they are allowed all the same, and what to use instead.
var banned = []struct {
	pkg, name string
	where     func(f file) bool // banned there
	instead   string
}{
	{"os", "Open", production, "internal/vfs"},
	{"os", "Create", production, "internal/vfs"},
	{"os", "OpenFile", production, "internal/vfs"},
	{"os", "Rename", production, "internal/vfs"},
	{"os", "Remove", production, "internal/vfs"},
	{"os", "RemoveAll", production, "internal/vfs"},
	{"os", "WriteFile", production, "internal/vfs"},
	{"unix", "Fsync", production, "vfs.File.SyncData"},
	{"unix", "Fdatasync", production, "vfs.File.SyncData"},
	{"exec", "Command", production, "nothing: the daemon runs no programs (RocketMQ CVE-2023-33246)"},
	{"unix", "Mmap", func(f file) bool { return production(f) && f.pkg != "cachectl" }, "pread: a fault in a mapping holds a P, and an I/O error is SIGBUS"},
	{"slog", "Default", production, "the injected logger"},
	{"time", "Sleep", func(f file) bool { return f.test && !imports(f, "testing/synctest") }, "a condition, a channel or testing/synctest"},
}

// imports tells whether a file imports a package.
func imports(f file, path string) bool {
	return slices.ContainsFunc(f.ast.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == strconv.Quote(path) })
}

// production code outside the doors to the operating system. Configuration files and the directories of a new tier are
// made and read before there is a vfs; the laboratory is about the machine and no part of the daemon.
func production(f file) bool {
	if f.test || strings.HasPrefix(f.pkg, "tests/") || strings.HasSuffix(f.pkg, "test") {
		return false
	}
	return f.pkg != "internal/vfs" && f.pkg != "internal/lab" && !strings.HasPrefix(f.pkg, "internal/bench") && f.pkg != "conf" && f.pkg != "cmd/lagoon" && f.pkg != "cmd/lagoon-bench"
}

func TestBannedCalls(t *testing.T) {
	fset, files := load(t)
	for _, f := range files {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			for _, b := range banned {
				if isCall(n, b.pkg, b.name) && b.where(f) {
					t.Errorf("%s: %s.%s is banned here: use %s", fset.Position(n.Pos()), b.pkg, b.name, b.instead)
				}
			}
			return true
		})
	}
}

// isCall tells whether n is a use of pkg.name.
func isCall(n ast.Node, pkg, name string) bool {
	s, ok := n.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != name {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == pkg
}

func TestNoInitAndNoUnfinishedMarks(t *testing.T) {
	fset, files := load(t)
	mark := regexp.MustCompile(`\b(TODO|FIXME|XXX)\b`)
	for _, f := range files {
		if f.pkg == "tests/arch" {
			continue
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" && !f.test {
				t.Errorf("%s: init registers behind everybody's back: use a literal table or a constructor", fset.Position(fn.Pos()))
			}
		}
		for _, g := range f.ast.Comments {
			if mark.MatchString(g.Text()) {
				t.Errorf("%s: unfinished: build it, or say in the docs that it is absent", fset.Position(g.Pos()))
			}
		}
	}
}

// TestEveryPackageSaysWhatItIsFor: a doc.go with a package comment of some substance, and not a novel.
func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	_, files := load(t)
	docs := map[string]int{}
	packages := map[string]bool{}
	for _, f := range files {
		if f.test || strings.Contains(f.pkg, "testdata") {
			continue
		}
		packages[f.pkg] = true
		if path.Base(f.path) == "doc.go" && f.ast.Doc != nil {
			docs[f.pkg] = strings.Count(f.ast.Doc.Text(), "\n")
		}
	}
	for pkg := range packages {
		switch n, ok := docs[pkg]; {
		case !ok:
			t.Errorf("%s has no package comment in doc.go", pkg)
		case n > 150:
			t.Errorf("%s/doc.go has %d lines: a newcomer reads 120 at most; move formats and reasons to docs/", pkg, n)
		}
	}
}

// TestExportedNamesAreDocumented in the packages that others build on.
func TestExportedNamesAreDocumented(t *testing.T) {
	fset, files := load(t)
	for _, f := range files {
		if f.test || strings.HasPrefix(f.pkg, "tests/") || strings.HasPrefix(f.pkg, "cmd/") {
			continue
		}
		for _, d := range f.ast.Decls {
			if name, pos, ok := undocumented(d); ok {
				t.Errorf("%s: exported %s has no comment", fset.Position(pos), name)
			}
		}
	}
}

func undocumented(d ast.Decl) (name string, pos token.Pos, bad bool) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if !d.Name.IsExported() || d.Doc != nil || short(d) {
			return "", 0, false
		}
		if d.Recv != nil && !exportedReceiver(d.Recv) {
			return "", 0, false
		}
		return d.Name.Name, d.Pos(), true
	case *ast.GenDecl:
		for _, s := range d.Specs {
			if ts, ok := s.(*ast.TypeSpec); ok && ts.Name.IsExported() && d.Doc == nil && ts.Doc == nil {
				return ts.Name.Name, ts.Pos(), true
			}
		}
	}
	return "", 0, false
}

// short methods say what they are: Error, String, Unwrap, Len and such, and one-line getters below a documented first.
func short(d *ast.FuncDecl) bool {
	switch d.Name.Name {
	case "Error", "String", "Unwrap", "Is", "Len", "Read", "Write", "Close", "ReadAt", "WriteAt", "MarshalText", "UnmarshalText", "MarshalJSON", "UnmarshalJSON", "ServeHTTP", "Describe", "Collect":
		return true
	}
	return d.Body != nil && len(d.Body.List) <= 1
}

func exportedReceiver(r *ast.FieldList) bool {
	e := r.List[0].Type
	if s, ok := e.(*ast.StarExpr); ok {
		e = s.X
	}
	id, ok := e.(*ast.Ident)
	return ok && id.IsExported()
}

// TestTopLevel: the folders that docs/design.md §2 names and no others.
func TestTopLevel(t *testing.T) {
	want := []string{"cmd", "tiering", "segment", "cachectl", "admission", "conf", "tests", "go.mod", "go.sum", "README.md", "internal", "docs", "deploy"}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || e.Name() == "lagoon-data" {
			continue
		}
		if !slices.Contains(want, e.Name()) {
			t.Errorf("%s does not belong at the top level", e.Name())
		}
	}
}

// TestSkipsAreCounted: a function that skips a test (as a helper or as the test) fails it where LAGOON_REQUIRE_ALL is set; any other
// skip, for brevity's sake, too, would go unnoticed in .ci/run.
func TestSkipsAreCounted(t *testing.T) {
	fset, files := load(t)
	for _, f := range files {
		if !imports(f, "testing") {
			continue
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			var skips []token.Pos
			counted := false
			ast.Inspect(fn, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CallExpr:
					if s, ok := n.Fun.(*ast.SelectorExpr); ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, s.Sel.Name) {
						skips = append(skips, n.Pos())
					}
				case *ast.BasicLit:
					counted = counted || n.Value == `"LAGOON_REQUIRE_ALL"`
				}
				return true
			})
			for _, pos := range skips {
				if !counted {
					t.Errorf("%s: a skip that LAGOON_REQUIRE_ALL does not turn into a failure", fset.Position(pos))
				}
			}
		}
	}
}

// clockWaits are the functions of tests that wait by the real clock, and why. Others wait for a condition, a channel or a process, use
// testing/synctest, or ask by lagoontest.Poll.
var clockWaits = map[string]string{
	"tests/internal/lagoontest/poll.go:Poll":        "for what another process knows and tells nobody",
	"tests/internal/lagoontest/broker.go:WaitReady": "the same, where the end of the process is told as well",
	"internal/broker/inline_test.go:waitUntil":      "for what has no event that a test could see",
	"internal/partition/log_test.go:waitFor":        "for what has no event that a test could see",
	"tests/crash/groups_test.go:watch":              "looks as long as a group is at work",
	"tests/hostile/helpers_test.go:watchMemory":     "samples",
	"tests/bench/measure_test.go:peak":              "samples",
	"tests/crash/groups_test.go:produceSteadily":    "sets a pace",
	"tests/hostile/hostile_test.go:TestDawdlers":    "sets a pace",
	"tests/fairness/cap_test.go:liveTail":           "sets a pace",
	"tests/bench/cleaner_test.go:overwrite":         "sets a pace",
	"tests/bench/cleaner_test.go:produce":           "sets a pace",
	"tests/bench/load_test.go:stream":               "sets a pace",
	"tests/bench/groups_test.go:beat":               "sets a pace",
	"tests/bench/groups_test.go:rebalance":          "for requests that arrive untold",
}

func TestNobodyPolls(t *testing.T) {
	fset, files := load(t)
	known := map[string]bool{}
	for _, f := range files {
		if !f.test && !strings.HasPrefix(f.pkg, "tests/") || imports(f, "testing/synctest") {
			continue
		}
		for _, w := range clockWaitsIn(f.ast) {
			where := f.path + ":" + w.function
			if known[where] = true; clockWaits[where] == "" {
				t.Errorf("%s: %s waits by the clock: wait for a condition, use testing/synctest, or lagoontest.Poll", fset.Position(w.pos), w.function)
			}
		}
	}
	for where := range clockWaits {
		if !known[where] {
			t.Errorf("%s does not wait by the clock any more: take it off the list", where)
		}
	}
}

// clockWait is a place that waits by the clock.
type clockWait struct {
	function string
	pos      token.Pos
}

// clockWaitsIn finds tickers, and timers that nothing else can end, in functions that make no bubble of virtual time.
func clockWaitsIn(tree *ast.File) (found []clockWait) {
	for _, d := range tree.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		var here []clockWait
		limits, virtual := map[ast.Stmt]bool{}, false
		ast.Inspect(fn, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				name, plain := n.Fun.(*ast.Ident)
				virtual = virtual || plain && name.Name == "bubble"
			case *ast.CommClause: // beside other cases a timer is a limit
				limits[n.Comm] = true
			case *ast.ExprStmt:
				if limits[n] {
					break
				}
				if receive, ok := n.X.(*ast.UnaryExpr); ok && receive.Op == token.ARROW && isTimer(receive.X) {
					here = append(here, clockWait{fn.Name.Name, n.Pos()})
				}
			case *ast.SelectorExpr:
				if isCall(n, "time", "NewTicker") || isCall(n, "time", "Tick") {
					here = append(here, clockWait{fn.Name.Name, n.Pos()})
				}
			}
			return true
		})
		if !virtual {
			found = append(found, here...)
		}
	}
	return found
}

func TestClockWaitsAreFound(t *testing.T) {
	const source = `package p
func bare() { <-time.After(time.Second) }
func timer() { <-time.NewTimer(time.Second).C }
func limit() { select { case <-done: case <-time.After(time.Second): } }
func tick() { t := time.NewTicker(time.Second); for { <-t.C } }
func ticks() { for range time.Tick(time.Second) { } }
func inner() { go func() { <-time.After(time.Second) }() }
func virtual() { bubble(t, func() { <-time.After(time.Second) }) }
func message() { <-done }
`
	tree, err := parser.ParseFile(token.NewFileSet(), "p.go", source, 0)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range clockWaitsIn(tree) {
		got = append(got, w.function)
	}
	if want := []string{"bare", "timer", "tick", "ticks", "inner"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}

// isTimer tells whether e is time.After(…) or time.NewTimer(…).C.
func isTimer(e ast.Expr) bool {
	if s, ok := e.(*ast.SelectorExpr); ok && s.Sel.Name == "C" {
		e = s.X
	}
	call, ok := e.(*ast.CallExpr)
	return ok && (isCall(call.Fun, "time", "After") || isCall(call.Fun, "time", "NewTimer"))
}

// TestWireStructsAreMadeByConstructors: a zero value of kmsg lacks the defaults of newer versions (epochs of -1, among them), so requests
// and answers are made by kmsg.New and NewPtr; outside of tests, so is everything in them.
func TestWireStructsAreMadeByConstructors(t *testing.T) {
	fset, files := load(t)
	for _, f := range files {
		if !imports(f, "github.com/twmb/franz-go/pkg/kmsg") {
			continue
		}
		for _, z := range zeroWireStructs(f.ast, f.test) {
			t.Errorf("%s: kmsg.%s without its defaults: use kmsg.New%s", fset.Position(z.Pos()), z.Sel.Name, z.Sel.Name)
		}
	}
}

// zeroWireStructs finds struct literals, variables and new of kmsg's types; whole: of requests and answers as a whole only.
func zeroWireStructs(root ast.Node, whole bool) (found []*ast.SelectorExpr) {
	note := func(e ast.Expr) {
		s, ok := e.(*ast.SelectorExpr)
		if !ok || !isCall(s, "kmsg", s.Sel.Name) || s.Sel.Name == "Request" || s.Sel.Name == "Response" { // those two are interfaces
			return
		}
		if !whole || strings.HasSuffix(s.Sel.Name, "Request") || strings.HasSuffix(s.Sel.Name, "Response") {
			found = append(found, s)
		}
	}
	ast.Inspect(root, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CompositeLit:
			note(n.Type)
			if list, ok := n.Type.(*ast.ArrayType); ok && slices.ContainsFunc(n.Elts, func(e ast.Expr) bool { _, inner := e.(*ast.CompositeLit); return inner }) {
				note(list.Elt)
			}
		case *ast.ValueSpec:
			if len(n.Values) == 0 {
				note(n.Type)
			}
		case *ast.CallExpr:
			if name, ok := n.Fun.(*ast.Ident); ok && name.Name == "new" {
				note(n.Args[0])
			}
		}
		return true
	})
	return found
}

func TestZeroWireStructsAreFound(t *testing.T) {
	const source = `package p
var a kmsg.FetchRequest
var b kmsg.Request
var c = kmsg.NewFetchRequest()
var d = &kmsg.FetchResponseTopic{}
var e = new(kmsg.ProduceResponse)
var f = []kmsg.FetchRequest{{}}
var g = []kmsg.FetchRequestTopic{}
`
	tree, err := parser.ParseFile(token.NewFileSet(), "p.go", source, 0)
	if err != nil {
		t.Fatal(err)
	}
	names := func(whole bool) (out []string) {
		for _, s := range zeroWireStructs(tree, whole) {
			out = append(out, s.Sel.Name)
		}
		return out
	}
	if got, want := names(false), []string{"FetchRequest", "FetchResponseTopic", "ProduceResponse", "FetchRequest"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	if got, want := names(true), []string{"FetchRequest", "ProduceResponse", "FetchRequest"}; !slices.Equal(got, want) {
		t.Errorf("of whole ones found %q, want %q", got, want)
	}
}
