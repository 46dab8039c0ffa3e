//! A client that speaks SIP over WebSocket as a browser does, by an implementation that is not ours.

use std::net::{IpAddr, SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::{Error, WebSocket};

pub use tungstenite::Message as Frame;

use crate::messages::{Message, Request, Transport};
use crate::secure::Line;
use crate::wait::PATIENCE;

/// One open connection.
#[derive(Debug)]
pub struct Browser {
    socket: WebSocket<Line>,
    local: SocketAddr,
}

impl Browser {
    /// Connects from `source` to `host`, at the path `/`.
    ///
    /// # Panics
    /// When the host refuses that.
    pub fn connect(source: IpAddr, host: SocketAddr) -> Self {
        match Self::try_connect(source, host, "/", &[("Sec-WebSocket-Protocol", "sip")]) {
            Ok(browser) => browser,
            Err(code) => panic!("the host answers {code}"),
        }
    }

    /// Connects at this path, with these header fields.
    ///
    /// # Errors
    /// The status code of a host that refuses that.
    ///
    /// # Panics
    /// When the host does not answer over HTTP.
    pub fn try_connect(
        source: IpAddr,
        host: SocketAddr,
        path: &str,
        fields: &[(&'static str, &str)],
    ) -> Result<Self, u16> {
        Self::over(connect(source, host).into(), host, path, fields)
    }

    /// Opens a WebSocket over this connection.
    ///
    /// # Errors
    /// The status code of a host that refuses that.
    ///
    /// # Panics
    /// When the host does not answer over HTTP.
    pub fn over(
        line: Line,
        host: SocketAddr,
        path: &str,
        fields: &[(&'static str, &str)],
    ) -> Result<Self, u16> {
        let local = line
            .tcp()
            .local_addr()
            .expect("a bound socket has an address");
        let request = format!("ws://{host}{path}").into_client_request();
        let mut request = request.expect("an address makes a request");
        for (name, value) in fields {
            let value = HeaderValue::from_str(value).expect("a value of a test is one line");
            request.headers_mut().insert(*name, value);
        }
        match tungstenite::client(request, line) {
            Ok((socket, _)) => Ok(Self { socket, local }),
            Err(tungstenite::HandshakeError::Failure(Error::Http(response))) => {
                Err(response.status().as_u16())
            }
            Err(error) => panic!("no handshake: {error}"),
        }
    }

    /// Its own address.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// A request as a browser sends it: it does not know its address (RFC 7118 §5).
    pub fn request(&self, method: &str, uri: &str) -> Request {
        let mut request = Request::new(method, uri, Transport::Udp, self.local);
        request.contacts = vec!["<sip:ada@df7jal23ls0d.invalid;transport=ws>".into()];
        request
    }

    /// Sends a request.
    pub fn send(&mut self, request: &Request) {
        let text = String::from_utf8(request.bytes()).expect("a request of a test is text");
        let own = format!("SIP/2.0/UDP {};", self.local);
        let transport = match self.socket.get_ref() {
            Line::Plain(_) => "WS",
            Line::Secure(_) => "WSS",
        };
        let via = format!("SIP/2.0/{transport} df7jal23ls0d.invalid;");
        let text = text.replacen(&own, &via, 1);
        self.send_frame(Frame::text(text));
    }

    /// Sends bytes as a text.
    pub fn send_text(&mut self, bytes: Vec<u8>) {
        let text = String::from_utf8(bytes).expect("a message of a test is text");
        self.send_frame(Frame::text(text));
    }

    /// Sends a message of WebSocket.
    pub fn send_frame(&mut self, frame: Frame) {
        self.socket.send(frame).expect("the connection takes bytes");
    }

    /// Sends a request and waits for the next message that is not a 100 (Trying).
    pub fn ask(&mut self, request: &Request) -> Message {
        self.send(request);
        self.receive()
    }

    /// The next SIP message that is not a 100 (Trying).
    ///
    /// # Panics
    /// When none comes.
    pub fn receive(&mut self) -> Message {
        loop {
            match self.receive_frame() {
                Some(Frame::Text(text)) => {
                    let message = Message::new(text.as_bytes().to_vec());
                    if message.code() != 100 {
                        return message;
                    }
                }
                Some(Frame::Ping(_) | Frame::Pong(_)) => {}
                other => panic!("no SIP message but {other:?}"),
            }
        }
    }

    /// The next message of WebSocket, with pings, which are answered; `None` at the end of the connection.
    pub fn receive_frame(&mut self) -> Option<Frame> {
        let stream = self.socket.get_ref().tcp();
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        match self.socket.read() {
            Ok(frame) => Some(frame),
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => None,
            Err(error) => panic!("the connection breaks: {error}"),
        }
    }

    /// The code of the close frame that the host sends next.
    ///
    /// # Panics
    /// When it sends something else.
    pub fn closed_with(&mut self) -> u16 {
        match self.receive_frame() {
            Some(Frame::Close(Some(close))) => close.code.into(),
            other => panic!("no close frame but {other:?}"),
        }
    }

    /// The connection below, for bytes that no client sends.
    pub fn stream(&mut self) -> &mut Line {
        self.socket.get_mut()
    }
}

/// A connection from `source`.
pub fn connect(source: IpAddr, host: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(host), Type::STREAM, None)
        .expect("a TCP socket can be made");
    socket
        .bind(&SocketAddr::new(source, 0).into())
        .expect("a loopback source can be bound");
    socket
        .connect_timeout(&host.into(), PATIENCE)
        .expect("the host accepts TCP");
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).expect("TCP_NODELAY can be set");
    stream
}
