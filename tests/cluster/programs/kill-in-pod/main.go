// Kills the process of a pod's container with SIGKILL, from the PID namespace of its node.
//
//	kill-in-pod POD_UID PROGRAM
//
// PROGRAM is the name of the process, which distinguishes it from the pod's sandbox.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "kill-in-pod POD_UID PROGRAM")
		os.Exit(2)
	}
	uid, program := os.Args[1], os.Args[2]
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range processes {
		name, _ := os.ReadFile(filepath.Join(process, "comm"))
		cgroups, _ := os.ReadFile(filepath.Join(process, "cgroup"))
		// A systemd slice has underscores in place of the hyphens of a UID.
		inPod := strings.Contains(strings.ReplaceAll(string(cgroups), "_", "-"), uid)
		if !inPod || strings.TrimSpace(string(name)) != program {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(process))
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(pid)
		return
	}
	fmt.Fprintf(os.Stderr, "no process %s in the pod %s\n", program, uid)
	os.Exit(1)
}
