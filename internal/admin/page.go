package admin

import (
	"cmp"
	"embed"
	"net/http"
	"path"
	"strings"
)

// page is what a browser shows: no build step, nothing from elsewhere, and no data, which its scripts ask the API for with the token of
// whoever looks. That is why it needs none itself.
//
//go:embed page
var page embed.FS

// pagePolicy lets the page load its own files and ask its own server, nothing else, and no script or style within a document.
const pagePolicy = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

var pageTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
	".sse": "text/event-stream; charset=utf-8",
}

// servePage answers GET / and GET /page/{file}.
func servePage(w http.ResponseWriter, c *call) error {
	name := cmp.Or(c.params["file"], "index.html")
	body, err := page.ReadFile("page/" + name)
	if err != nil || strings.Contains(name, "/") {
		return &NotFoundError{What: "file", Name: name}
	}
	w.Header().Set("Content-Type", pageTypes[path.Ext(name)])
	w.Header().Set("Content-Security-Policy", pagePolicy)
	_, _ = w.Write(body) // the caller went away: nobody is left to tell
	return nil
}
