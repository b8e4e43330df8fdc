// The Go program that httpserver replaces, as a peer for the load bench: net/http, client_golang, a random sleep.
package main

import (
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Delays are below the duration that the first argument names, such as 2s.
func main() {
	delayMax, err := time.ParseDuration(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	histogram := prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "http_request_duration_seconds",
		Help:    "A histogram of the HTTP request durations in seconds.",
		Buckets: prometheus.ExponentialBuckets(0.1, 1.5, 5),
	})
	prometheus.MustRegister(histogram)

	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		start := time.Now()
		if delayMax > 0 {
			time.Sleep(rand.N(delayMax))
		}
		duration := time.Since(start).Seconds()
		fmt.Fprintf(w, "answered after %.6f s\n", duration)
		histogram.(prometheus.ExemplarObserver).ObserveWithExemplar(duration, prometheus.Labels{"api": "healthz"})
	})
	http.Handle("/metrics", promhttp.HandlerFor(prometheus.DefaultGatherer, promhttp.HandlerOpts{EnableOpenMetrics: true}))

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprintf(os.Stderr, "net/http listening on %s, answering after 0s to %s\n", listener.Addr(), delayMax)
	log.Fatal(http.Serve(listener, nil))
}
