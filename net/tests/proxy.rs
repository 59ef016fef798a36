//! The Service proxy on real sockets of the loopback range.

use kubewright_net::proxy::{Protocol, ProxyOptions, ServicePort, ServiceProxy};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// A server that answers each connection with its own address.
async fn server(ip: [u8; 4]) -> SocketAddr {
    let listener = TcpListener::bind(SocketAddr::from((ip, 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(address.to_string().as_bytes()).await;
        }
    });
    address
}

async fn ask(address: SocketAddr) -> String {
    let mut text = String::new();
    match TcpStream::connect(address).await {
        Ok(mut stream) => match stream.read_to_string(&mut text).await {
            Ok(_) => text,
            Err(e) => format!("{:?}", e.kind()),
        },
        Err(e) => format!("{:?}", e.kind()),
    }
}

/// A port nobody listens on, on an address of these tests.
async fn free(ip: [u8; 4]) -> SocketAddr {
    TcpListener::bind(SocketAddr::from((ip, 0))).await.unwrap().local_addr().unwrap()
}

fn port(vip: SocketAddr, endpoints: &[SocketAddr], affinity: Option<Duration>) -> ServicePort {
    ServicePort {
        service: "default/web".to_owned(),
        name: String::new(),
        protocol: Protocol::Tcp,
        addresses: vec![vip.ip()],
        port: vip.port(),
        node_port: None,
        affinity,
        endpoints: endpoints.to_vec(),
    }
}

#[tokio::test]
async fn connections_go_to_every_endpoint_and_around_dead_ones() {
    let (a, b) = (server([127, 77, 0, 1]).await, server([127, 77, 0, 2]).await);
    let dead = free([127, 77, 0, 3]).await;
    let vip = free([127, 77, 1, 1]).await;
    let proxy = ServiceProxy::new(ProxyOptions::default());
    assert!(proxy.apply(&[port(vip, &[a, b, dead], None)]).await.is_empty());
    let mut seen: Vec<String> = Vec::new();
    for _ in 0..6 {
        seen.push(ask(vip).await);
    }
    assert!(seen.contains(&a.to_string()) && seen.contains(&b.to_string()), "{seen:?}");
    assert!(seen.iter().all(|s| *s == a.to_string() || *s == b.to_string()), "{seen:?}");

    // One endpoint goes: the listener stays, connections go to the other.
    assert!(proxy.apply(&[port(vip, &[b], None)]).await.is_empty());
    assert_eq!((ask(vip).await, ask(vip).await), (b.to_string(), b.to_string()));
    // None is left: clients are refused at once.
    proxy.apply(&[port(vip, &[], None)]).await;
    assert_eq!(ask(vip).await, "ConnectionReset");
    // The Service goes: nobody listens.
    proxy.apply(&[]).await;
    for _ in 0..50 {
        if ask(vip).await == "ConnectionRefused" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(ask(vip).await, "ConnectionRefused");
    assert!(proxy.addresses().is_empty());
}

#[tokio::test]
async fn a_client_sticks_to_its_endpoint() {
    let (a, b) = (server([127, 77, 0, 1]).await, server([127, 77, 0, 2]).await);
    let vip = free([127, 77, 1, 2]).await;
    let proxy = ServiceProxy::new(ProxyOptions::default());
    proxy.apply(&[port(vip, &[a, b], Some(Duration::from_secs(60)))]).await;
    let first = ask(vip).await;
    for _ in 0..5 {
        assert_eq!(ask(vip).await, first);
    }
}

#[tokio::test]
async fn node_ports_answer_and_failures_are_told() {
    let a = server([127, 77, 0, 1]).await;
    let node = free([127, 0, 0, 1]).await;
    let taken = TcpListener::bind("127.77.1.3:0").await.unwrap();
    let mut service = port(taken.local_addr().unwrap(), &[a], None);
    service.node_port = Some(node.port());
    let proxy = ServiceProxy::new(ProxyOptions::default());
    let failures = proxy.apply(std::slice::from_ref(&service)).await;
    assert_eq!(failures.len(), 1);
    assert!(failures[0].to_string().starts_with("Service default/web does not answer on 127.77.1.3:"));
    assert_eq!(ask(node).await, a.to_string());
    drop(taken);
    assert!(proxy.apply(&[service]).await.is_empty(), "the next try opens it");
    proxy.shutdown().await;
    assert_eq!(ask(node).await, "ConnectionRefused");
}

#[tokio::test]
async fn datagrams_go_there_and_back() {
    let echo = UdpSocket::bind("127.77.0.9:0").await.unwrap();
    let endpoint = echo.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 64];
        while let Ok((n, from)) = echo.recv_from(&mut buffer).await {
            let _ = echo.send_to(&buffer[..n], from).await;
        }
    });
    let vip = UdpSocket::bind("127.77.1.9:0").await.unwrap().local_addr().unwrap();
    let proxy = ServiceProxy::new(ProxyOptions::default());
    let service = ServicePort { protocol: Protocol::Udp, ..port(vip, &[endpoint], None) };
    assert!(proxy.apply(&[service]).await.is_empty());
    let client = UdpSocket::bind(SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 0)).await.unwrap();
    client.connect(vip).await.unwrap();
    let mut buffer = [0; 64];
    for text in ["one", "two"] {
        client.send(text.as_bytes()).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(5), client.recv(&mut buffer));
        let length = answer.await.unwrap().unwrap();
        assert_eq!(&buffer[..length], text.as_bytes());
    }
}
