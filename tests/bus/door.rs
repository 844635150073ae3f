//! A bootstrap address: a TCP forwarder whose brokers can be exchanged for others, as behind a load balancer or a name.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

/// An open one.
pub struct Door {
    pub address: String,
    to: Arc<Mutex<String>>,
}

impl Door {
    pub async fn open(to: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let to = Arc::new(Mutex::new(to.to_owned()));
        let leads = Arc::clone(&to);
        #[expect(clippy::disallowed_methods, reason = "a test is its own app")]
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let to = leads.lock().clone();
                #[expect(clippy::disallowed_methods, reason = "a test is its own app")]
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(to).await else { return };
                    copy_bidirectional(&mut near, &mut far).await.ok();
                });
            }
        });
        Self { address, to }
    }

    /// Connections that come from now on are led there.
    pub fn lead(&self, to: &str) {
        to.clone_into(&mut self.to.lock());
    }
}
