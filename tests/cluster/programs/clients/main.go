// Clients of an HTTP server, each of which sends its next request once the last one is answered.
//
//	clients -url URL [-keep-alive N] [-closing N]
//
// They run until the end of standard input. Each line of input closes a window: one JSON object on standard output
// describes the requests that finished since the last line. The end of input closes the last window. A keep-alive client
// has one connection, and opens a new one when the server closes it. A closing client opens one for each request.
//
// A server may close an idle connection just as a request is sent on it. Like other HTTP clients (RFC 9110, section
// 9.2.2), net/http then sends the request again on a new connection, if no byte of a response has arrived. But if the
// server closes later than closedWhileIdle after the request was sent, the request had reached it and counts as lost.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// How long after a request was sent its client may notice that the connection was closed before: a few round trips,
	// on a busy machine.
	closedWhileIdle = 250 * time.Millisecond
	// A request that takes longer is lost. This is far longer than any delay.
	requestTimeout = 20 * time.Second
	// How long a client waits after a lost request, so that it does not flood a server that is gone.
	pauseAfterLoss = 100 * time.Millisecond
	// How many errors of a window are reported.
	errorsDescribed = 5
)

// window is what the clients measured since the last report.
type window struct {
	Answered map[string]int `json:"answered"` // responses by status
	Lost     int            `json:"lost"`
	Retried  int            `json:"retried"` // answered at the second attempt
	Errors   []string       `json:"errors"`  // the first few errors of lost requests
	Seconds  float64        `json:"seconds"`
	// Latencies, from sending a request to the end of its response, in seconds.
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	Worst float64 `json:"worst"`

	began     time.Time
	latencies []time.Duration
}

func newWindow() *window {
	return &window{Answered: map[string]int{}, Errors: []string{}, began: time.Now()}
}

func (w *window) quantile(q float64) float64 {
	if len(w.latencies) == 0 {
		return 0
	}
	rank := int(q * float64(len(w.latencies)))
	return w.latencies[min(rank, len(w.latencies)-1)].Seconds()
}

// report completes the window and writes it as one line.
func (w *window) report(out *json.Encoder) error {
	w.Seconds = time.Since(w.began).Seconds()
	slices.Sort(w.latencies)
	w.P50, w.P90, w.P99, w.Worst = w.quantile(0.5), w.quantile(0.9), w.quantile(0.99), w.quantile(1)
	return out.Encode(w)
}

// recorder holds the current window, which all clients write to.
type recorder struct {
	sync.Mutex
	window *window
}

func (r *recorder) answered(status, attempts int, latency time.Duration) {
	r.Lock()
	defer r.Unlock()
	r.window.Answered[strconv.Itoa(status)]++
	if attempts > 1 {
		r.window.Retried++
	}
	r.window.latencies = append(r.window.latencies, latency)
}

func (r *recorder) lost(err error) {
	r.Lock()
	defer r.Unlock()
	r.window.Lost++
	if len(r.window.Errors) < errorsDescribed {
		r.window.Errors = append(r.window.Errors, err.Error())
	}
}

// next starts a new window and returns the last one.
func (r *recorder) next() *window {
	r.Lock()
	defer r.Unlock()
	last := r.window
	r.window = newWindow()
	return last
}

// send sends one request and reads its response to the end. It returns the status and how many connections were tried.
func send(client *http.Client, url string) (status, attempts int, err error) {
	var sent time.Time
	var late time.Duration
	trace := &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) {
			attempts++
			if attempts > 1 && !sent.IsZero() {
				late = time.Since(sent)
			}
		},
		WroteRequest: func(info httptrace.WroteRequestInfo) {
			if info.Err == nil {
				sent = time.Now()
			}
		},
	}
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return 0, 0, err
	}
	response, err := client.Do(request.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
	if err != nil {
		return 0, attempts, err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return 0, attempts, err
	}
	if late > closedWhileIdle {
		return 0, attempts, fmt.Errorf("closed without a response %v after the request was sent", late)
	}
	return response.StatusCode, attempts, nil
}

// run sends requests forever.
func run(url string, closing bool, recorder *recorder) {
	client := &http.Client{
		Transport: &http.Transport{DisableKeepAlives: closing, MaxConnsPerHost: 1, DisableCompression: true},
		Timeout:   requestTimeout,
	}
	for {
		began := time.Now()
		status, attempts, err := send(client, url)
		if err != nil {
			recorder.lost(err)
			time.Sleep(pauseAfterLoss)
			continue
		}
		recorder.answered(status, attempts, time.Since(began))
	}
}

func main() {
	url := flag.String("url", "", "target of the requests")
	keepAlive := flag.Int("keep-alive", 0, "number of clients that keep their connection")
	closing := flag.Int("closing", 0, "number of clients that open a connection for each request")
	flag.Parse()
	if *url == "" || *keepAlive+*closing <= 0 || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "clients -url URL [-keep-alive N] [-closing N]")
		os.Exit(2)
	}

	recorder := &recorder{window: newWindow()}
	for i := range *keepAlive + *closing {
		go run(*url, i >= *keepAlive, recorder)
	}
	input, output := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	for more := true; more; {
		more = input.Scan()
		if err := recorder.next().report(output); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
