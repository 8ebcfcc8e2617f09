package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"lagoon/conf"
	"lagoon/internal/admin"
)

const (
	// maxAnswerBytes bounds what the CLI takes from whatever answers at --admin.
	maxAnswerBytes = 64 << 20
	askTimeout     = 30 * time.Second
	slowTimeout    = 11 * time.Minute // evict and warm; the server gives up after 10
	maxTokenBytes  = 4 << 10
	// defaultSocket is where packages put the admin socket; the CLI uses it when it is there.
	defaultSocket = "/run/lagoon/admin.sock"
)

// ask calls the admin API, prints nothing, and gives the body. in, when not nil, is sent as JSON.
func (a *app) ask(ctx context.Context, method, path string, query url.Values, in any) ([]byte, error) {
	timeout := askTimeout
	if method == http.MethodPost {
		timeout = slowTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	resp, body, err := a.call(ctx, method, path, query, in)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 400 {
		return nil, problemError(resp, body)
	}
	return body, nil
}

// localError is a fault on this side, before anybody was asked.
type localError struct{ error }

func (e localError) Unwrap() error { return e.error }

func (a *app) call(ctx context.Context, method, path string, query url.Values, in any) (*http.Response, []byte, error) {
	endpoint, client := a.admin, http.DefaultClient
	if path, ok := strings.CutPrefix(a.admin, "unix:"); ok {
		if path == "" {
			return nil, nil, usagef("--admin unix: needs a path, as in unix:%s", defaultSocket)
		}
		transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}}
		defer transport.CloseIdleConnections()
		endpoint, client = "http://localhost", &http.Client{Transport: transport}
	}
	base, err := url.Parse(endpoint)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" {
		return nil, nil, usagef("--admin %q is not a URL like http://127.0.0.1:9645 or unix:%s", a.admin, defaultSocket)
	}
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, nil, err
		}
		body = bytes.NewReader(text)
	}
	target := strings.TrimSuffix(endpoint, "/") + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if a.tokenFile != "" {
		token, err := readToken(a.tokenFile)
		if err != nil {
			return nil, nil, localError{err}
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, a.dialError(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	if err != nil {
		return nil, nil, fmt.Errorf("%s broke off its answer: %w", a.admin, err)
	}
	if len(answer) > maxAnswerBytes {
		return nil, nil, fmt.Errorf("%s answers with more than %d MiB: this is not a Lagoon admin API", a.admin, maxAnswerBytes>>20)
	}
	return resp, answer, nil
}

// dialError says in one line how to get a daemon to talk to.
func (a *app) dialError(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s may be opened by its owner and group only: run as one of them", a.admin)
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("no daemon answers at %s: start one with `lagoon dev` or `lagoon serve -c FILE`, or point --admin (or $LAGOON_ADMIN) at it", a.admin)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s did not answer in time: is it a Lagoon admin API?", a.admin)
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	return fmt.Errorf("cannot reach %s: %w", a.admin, err)
}

// problemError turns an RFC 9457 answer into a line.
func problemError(resp *http.Response, body []byte) error {
	var p admin.Problem
	if err := json.Unmarshal(body, &p); err != nil || p.Detail == "" {
		return fmt.Errorf("%s answered %s: this is not a Lagoon admin API", resp.Request.URL.Host, resp.Status)
	}
	text := p.Detail
	if len(p.Suggestions) > 0 {
		text += fmt.Sprintf(": did you mean %s?", strings.Join(p.Suggestions, " or "))
	}
	text = clean(text) // suggestions are names that clients chose
	if resp.StatusCode == http.StatusUnauthorized {
		text = "the daemon wants a token: give --token-file (or $LAGOON_TOKEN_FILE) the file that its admin.token_file names"
	}
	if resp.StatusCode == http.StatusInternalServerError {
		text += " " + p.RequestID
	}
	if resp.StatusCode == http.StatusBadRequest {
		return usageError{errors.New(text)}
	}
	return errors.New(text)
}

// readToken reads a bearer token: the first line of a file.
func readToken(path string) (string, error) {
	f, err := conf.OpenText(path)
	if err != nil {
		return "", fmt.Errorf("token file %s %w", path, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxTokenBytes))
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	token, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	if token = strings.TrimSpace(token); token == "" { // lines may end in CRLF
		return "", fmt.Errorf("token file %s is empty", path)
	}
	return token, nil
}

// decode reads an answer into its shape.
func decode[T any](body []byte) (T, error) {
	var v T
	if err := json.Unmarshal(body, &v); err != nil {
		return v, fmt.Errorf("the answer cannot be read: %w", err)
	}
	return v, nil
}
