// Carries a session header between services, with nothing but the standard library.
//
//	carry URL COUNT          asks COUNT times as one user, and prints which pod answered
//	carry --serve PORT URL   a service in between: whoever calls it keeps their session with URL
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
)

const header = "X-Session"

// Session is one user's session with one service: it sends what the last answer brought.
type Session struct{ token string }

// Get asks, and remembers a token that the answer brings: only one that begins or moves the session does.
func (s *Session) Get(url string) (status int, body []byte, err error) {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, err
	}
	if s.token != "" {
		request.Header.Set(header, s.token)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	if token := answer.Header.Get(header); token != "" {
		s.token = token
	}
	body, err = io.ReadAll(answer.Body)
	return answer.StatusCode, body, err
}

// between passes the caller's token on, and what comes back to the caller: the user is the caller's, not ours.
func between(upstream string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		before := r.Header.Get(header)
		session := Session{token: before}
		status, body, err := session.Get(upstream)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		if session.token != before {
			w.Header().Set(header, session.token)
		}
		w.WriteHeader(status)
		_, _ = w.Write(body)
	}
}

func main() {
	if len(os.Args) == 4 && os.Args[1] == "--serve" {
		log.Fatal(http.ListenAndServe(":"+os.Args[2], between(os.Args[3])))
	}
	if len(os.Args) != 3 {
		log.Fatal("usage: carry URL COUNT | carry --serve PORT URL")
	}
	count, err := strconv.Atoi(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	var session Session
	for range count {
		_, body, err := session.Get(os.Args[1])
		if err != nil {
			log.Fatal(err)
		}
		for _, line := range strings.Split(string(body), "\n") {
			if strings.HasPrefix(line, "Hostname=") {
				fmt.Println(line)
			}
		}
	}
}
