package admin_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"lagoon/internal/admin"
)

type openAPIDoc struct {
	Paths map[string]map[string]struct {
		Summary    string
		Stability  string `json:"x-stability"`
		Security   *[]any
		Parameters []struct{ Name, In string }
		Body       *struct {
			Content map[string]struct {
				Schema map[string]any
			}
		} `json:"requestBody"`
		Responses map[string]any
	}
	Components struct {
		Schemas map[string]struct {
			Properties map[string]map[string]any
		}
	}
}

func readOpenAPI(t *testing.T) (doc openAPIDoc) {
	t.Helper()
	if err := json.Unmarshal(admin.OpenAPI, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestOpenAPIMatchesTheRoutes fails when a route, its parameters or its need for a token are not in the document, and the other way round.
func TestOpenAPIMatchesTheRoutes(t *testing.T) {
	doc, f := readOpenAPI(t), newServer(t, nil)
	documented := 0
	for _, ops := range doc.Paths {
		documented += len(ops)
	}
	if got := len(f.Operations()); got != documented {
		t.Errorf("%d routes, %d documented operations", got, documented)
	}
	for _, op := range f.Operations() {
		o, ok := doc.Paths[op.Path][strings.ToLower(op.Method)]
		if !ok {
			t.Errorf("%s %s is not documented", op.Method, op.Path)
			continue
		}
		if o.Summary == "" || o.Stability != "stable" && o.Stability != "experimental" || o.Responses["200"] == nil || o.Responses["default"] == nil {
			t.Errorf("%s %s: summary, x-stability or responses are missing", op.Method, op.Path)
		}
		if open := o.Security != nil && len(*o.Security) == 0; open != op.Public {
			t.Errorf("%s: public %v, documented %v", op.Path, op.Public, open)
		}
		var query, path []string
		for _, p := range o.Parameters {
			if p.In == "query" {
				query = append(query, p.Name)
			} else {
				path = append(path, "{"+p.Name+"}")
			}
		}
		if slices.Sort(query); !slices.Equal(query, slices.Sorted(slices.Values(op.Query))) {
			t.Errorf("%s: parameters %v, documented %v", op.Path, op.Query, query)
		}
		for _, p := range path {
			if !strings.Contains(op.Path, p) {
				t.Errorf("%s: documents %s", op.Path, p)
			}
		}
		if len(path) != strings.Count(op.Path, "{") {
			t.Errorf("%s: documents path parameters %v", op.Path, path)
		}
		if (op.Method == "PUT" || op.Method == "POST") != (o.Body != nil) {
			t.Errorf("%s %s: request body documented: %v", op.Method, op.Path, o.Body != nil)
		}
	}
}

// TestOpenAPIMatchesTheShapes compares every documented schema with the Go type of the same name.
func TestOpenAPIMatchesTheShapes(t *testing.T) {
	types := map[string]reflect.Type{}
	collect(types, reflect.TypeFor[admin.Problem]())
	for _, v := range []any{
		admin.Status{}, admin.TopicList{}, admin.SegmentList{}, admin.Cache{}, admin.ReaderList{}, admin.TierList{}, admin.Throttle{}, admin.OverrideBody{},
		admin.OverrideResult{}, admin.Migrations{}, admin.MigrationOrder{}, admin.MigrationPauseBody{}, admin.MigrationPause{}, admin.Compactions{}, admin.PinList{}, admin.Unpinned{}, admin.GroupList{}, admin.Group{}, admin.ExplainQuery{}, admin.Explanation{}, admin.ActionBody{}, admin.CacheActionResult{}, admin.Config{}, admin.ConfigReload{}, admin.ConfigReloadBody{}, admin.LogLevel{}, admin.LogLevelBody{}, admin.StreamFrame{},
	} {
		collect(types, reflect.TypeOf(v))
	}
	doc := readOpenAPI(t)
	for name, schema := range doc.Components.Schemas {
		typ, ok := types[name]
		if !ok {
			t.Errorf("schema %s has no Go type", name)
			continue
		}
		want := jsonNames(typ)
		var got []string
		for prop := range schema.Properties {
			got = append(got, prop)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s: documented %v, Go has %v", name, got, want)
		}
		delete(types, name)
	}
	for name := range types {
		t.Errorf("%s is not documented", name)
	}
}

func collect(types map[string]reflect.Type, t reflect.Type) {
	switch t.Kind() {
	case reflect.Slice, reflect.Pointer, reflect.Map:
		collect(types, t.Elem())
	case reflect.Struct:
		if t == reflect.TypeFor[time.Time]() || types[t.Name()] != nil {
			return
		}
		types[t.Name()] = t
		for _, f := range reflect.VisibleFields(t) { // those of embedded structs, too
			if !f.Anonymous {
				collect(types, f.Type)
			}
		}
	}
}

func jsonNames(t reflect.Type) []string {
	var out []string
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); !f.Anonymous {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
