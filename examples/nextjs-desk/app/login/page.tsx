import type { Metadata } from "next";

import { LoginForm } from "./login-form";
import styles from "./login.module.css";

export const metadata: Metadata = { title: "Sign in" };

export default async function Login({ searchParams }: PageProps<"/login">) {
  const { ended } = await searchParams;
  return (
    <main className={styles.page}>
      <div className={styles.card}>
        <p className={styles.brand}>Desk</p>
        <h1>Sign in</h1>
        {ended !== undefined && (
          <p role="status" className="notice">
            Your session has ended. Nothing you recorded is lost.
          </p>
        )}
        <LoginForm />
      </div>
    </main>
  );
}
